"""Synchronised integrated batch norm: two gloo processes against one with the whole batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from icconv_mm.layers import IntegratedBatchNorm, IntegratedSyncBatchNorm

pytestmark = pytest.mark.slow

CHANNELS, STEPS = 4, 2
SIZES = [(4, 6), (2, 3)]
SPLIT = [1, 2]  # images of the two processes: an unequal share, so that means of means are wrong


def batch(step: int) -> tuple[list, list]:
    """Levels of the whole batch, and what the loss weighs their outputs by."""
    generator = torch.Generator().manual_seed(step)
    return tuple(
        [torch.randn(sum(SPLIT), CHANNELS, *size, dtype=torch.float64, generator=generator) for size in SIZES]
        for _ in range(2)
    )


def train(norm, part: slice) -> dict:
    """Steps on a part of every batch; outputs, gradients and buffers."""
    result = {}
    for step in range(STEPS):
        levels, weights = batch(step)
        levels = [level[part].clone().requires_grad_() for level in levels]
        outputs = norm(levels)
        torch.autograd.backward(outputs, [weight[part] for weight in weights])
        result |= {f'out {step} {i}': x.detach() for i, x in enumerate(outputs)}
        result |= {f'grad {step} {i}': x.grad for i, x in enumerate(levels)}
    result |= {f'grad {name}': p.grad for name, p in norm.named_parameters()}
    return result | {f'buffer {name}': b for name, b in norm.named_buffers()}


def worker(rank: int, folder: str) -> None:
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    part = slice(0, SPLIT[0]) if rank == 0 else slice(SPLIT[0], None)
    result = train(IntegratedSyncBatchNorm(CHANNELS).double(), part)
    torch.save(result, f'{folder}/{rank}.pth')
    dist.destroy_process_group()


def test_two_processes_are_one(tmp_path):
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in (0, 1)]
    whole = train(IntegratedBatchNorm(CHANNELS).double(), slice(None))
    for name, value in whole.items():
        kind, what, *_ = name.split()
        parts = [rank[name] for rank in ranks]
        if kind == 'buffer':
            assert torch.equal(*parts), name
            got = parts[0]
        elif kind == 'grad' and what in ('weight', 'bias'):
            got = parts[0] + parts[1]  # every process has its share, which DistributedDataParallel averages
        else:
            got = torch.cat(parts)
        torch.testing.assert_close(got, value, rtol=0, atol=1e-10, msg=lambda text, name=name: f'{name}: {text}')
