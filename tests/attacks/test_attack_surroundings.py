"""The operators where programs take them: forks, spawned processes, loaders."""

import multiprocessing

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from icconv_mm.layers import ICConv2d
from icconv_mm.ops import use_backend

PATTERN = [(4, 1, 1), (2, 2, 2), (2, 1, 3)]


def layer() -> ICConv2d:
    torch.manual_seed(0)
    return ICConv2d(8, 8, PATTERN).eval()


def expected(conv, x):
    with torch.no_grad(), use_backend('reference'):
        return conv(x)


def same(got, other):
    torch.testing.assert_close(got, other, rtol=1e-4, atol=1e-4)


def _in_process(queue, x):
    torch.set_num_threads(1)  # as a loader's workers do: torch's own operators wait for threads that no fork has
    with torch.no_grad():
        queue.put(layer()(x).numpy())


@pytest.mark.parametrize('method', ['fork', pytest.param('spawn', marks=pytest.mark.slow)])
def test_processes(method):
    x = torch.randn(1, 8, 9, 9)
    conv = layer()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with torch.no_grad():
        conv(x), conv(x)  # kept before the fork
    torch.set_num_threads(threads)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    processes = [context.Process(target=_in_process, args=(queue, x)) for _ in range(3)]
    for process in processes:
        process.start()
    for _ in processes:
        same(torch.from_numpy(queue.get(timeout=120)), expected(conv, x))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


class Convolved(Dataset):
    def __init__(self):
        self.conv = layer()

    def __len__(self):
        return 6

    def __getitem__(self, i):
        with torch.no_grad():
            return self.conv(torch.full((1, 8, 5, 5), float(i)))[0]


def test_workers_of_a_loader():
    got = torch.cat(list(DataLoader(Convolved(), batch_size=2, num_workers=2)))
    same(got, torch.stack([expected(layer(), torch.full((1, 8, 5, 5), float(i)))[0] for i in range(6)]))
