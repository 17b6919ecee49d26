"""A run that is killed continues as if it had not been; a checkpoint that could run code is refused."""

import os
import signal
import sys

import pytest
import torch
from pickled_calls import Call
from workspaces import DETECTION, short

from icconv_mm.checkpoints import read

pytestmark = pytest.mark.slow

ITERATIONS = 7
# Random order, random flips in a worker, random sampling of regions in the model; a checkpoint every 3 iterations.
RUN = """
custom_imports = dict(imports=['icconv_mm', 'interruptions'], allow_failed_imports=False)
"""
EVERY_THREE = {
    'train_dataloader.batch_size': 2,
    'default_hooks.checkpoint.interval': 3,
    'train_cfg.val_interval': 3,
    'train_dataloader.num_workers': 1,
    'train_dataloader.persistent_workers': True,
}


def test_killed_run_resumes_on_the_same_curve(workspace):
    config = workspace.derive('whole', DETECTION, RUN)
    options = short(ITERATIONS, **EVERY_THREE)
    assert workspace.tool('train', config, '--work-dir', 'runs/whole', *options) is None

    killed = workspace.derive('killed', DETECTION, RUN + "custom_hooks = [dict(type='KillHook', at=5)]")
    train = (sys.executable, workspace.repo / 'tools/train.py')
    run = workspace.run(*train, killed, '--work-dir', 'runs/killed', *options, check=False)
    assert run.returncode == -signal.SIGKILL
    folder = workspace.root / 'runs/killed'
    assert [path.name for path in folder.glob('*.pth')] == ['iter_3.pth']
    assert sorted(workspace.losses('runs/killed')) == [1, 2, 3, 4, 5]

    assert workspace.tool('train', config, '--work-dir', 'runs/killed', '--resume', *options) is None
    whole, resumed = workspace.losses('runs/whole'), workspace.losses('runs/killed')
    assert sorted(resumed) == [4, 5, 6, 7]
    for step, loss in resumed.items():
        assert loss == pytest.approx(whole[step], abs=1e-4), step
    ends = [read(workspace.root / f'runs/{name}/iter_7.pth')['state_dict'] for name in ('whole', 'killed')]
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize('tool', ['resume', 'load_from', 'test', 'infer'])
def test_foreign_payload_is_refused(workspace, detector, tool):
    mark, path = workspace.root / 'executed', workspace.root / 'foreign.pth'
    torch.save({**read(detector), 'extra': Call(os.mkdir, str(mark))}, path)
    config = workspace.config(DETECTION)
    name, args = {
        'resume': ('train', (config, '--resume', path, *short(5))),
        'load_from': ('train', (config, *short(1, load_from=path))),
        'test': ('test', (config, path, *short(1))),
        'infer': ('infer', (config, path, 'data/miniature/val', '--out-dir', 'runs/foreign')),
    }[tool]
    error = workspace.tool(name, *args)
    assert error == (
        f'error: {path}: refused, and nothing in it was executed: it asks for posix.mkdir, but it may hold '
        'only tensors, plain data, numpy arrays and the log buffers of mmengine'
    )
    assert not mark.exists()
