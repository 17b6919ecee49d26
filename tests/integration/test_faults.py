"""What happens around a run: other processes die or hang, the clock jumps, memory must not grow."""

import sys
import time

import endure
import pytest
from saving import run
from workspaces import SEMANTIC, short

from icconv_mm.engine.saving import AtomicCheckpointHook

pytestmark = pytest.mark.slow
TIMEOUT = 15

TWO = """
custom_imports = dict(imports=['icconv_mm', 'interruptions'], allow_failed_imports=False)
env_cfg = dict(dist_cfg=dict(timeout={timeout}))
custom_hooks = [dict(type='{hook}', at=1, rank=1)]
"""


@pytest.mark.parametrize('hook', ['KillHook', 'HangHook'])
def test_one_of_two_processes_ends_or_hangs(workspace, hook):
    config = workspace.derive(hook, SEMANTIC, TWO.format(hook=hook, timeout=TIMEOUT))
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    tool = (workspace.repo / 'tools/train.py', config, '--launcher', 'pytorch', '--work-dir', f'runs/{hook}')
    start = time.monotonic()
    result = workspace.run(*torchrun, *tool, *short(4, **{'train_dataloader.batch_size': 2}), check=False)
    assert result.returncode != 0
    assert time.monotonic() - start < TIMEOUT + 120
    if hook == 'HangHook':  # torchrun ends the others of a killed one before they notice
        assert 'error: process 0 of 2: another process of this run has ended or does not answer (' in result.stderr


def test_a_clock_that_jumps(tmp_path, monkeypatch):
    """Forwards and backwards by years, between any two questions."""
    now, jumps = time.time, iter([0, 10**8, -(10**8), 3600, -3600] * 10_000)
    expected = run(tmp_path / 'steady', 5, AtomicCheckpointHook, max_keep_ckpts=2)
    monkeypatch.setattr(time, 'time', lambda: now() + next(jumps))
    assert run(tmp_path / 'jumping', 5, AtomicCheckpointHook, max_keep_ckpts=2) == expected
    assert (tmp_path / 'jumping/iter_5.pth').is_file()


def test_calls_leave_nothing_behind():
    figures = endure.calls(3000)
    assert figures['memory_mb'][-1] - figures['memory_mb'][1] < 20, figures
    assert figures['threads'][-1] <= figures['threads'][0] and figures['files'][-1] <= figures['files'][0], figures


def test_cycles_leave_little_behind(tmp_path):
    figures = endure.cycles(12, tmp_path)
    assert figures['files'][-1] <= figures['files'][1] and figures['threads'][-1] <= figures['threads'][1], figures
