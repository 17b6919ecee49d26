"""Reading checkpoints runs no code from them, whatever they hold."""

import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from pickled_calls import Call

from icconv_mm.checkpoints import safe


@pytest.fixture
def checkpoint():
    """What mmengine's runner writes, in small."""
    hub = MessageHub('test_safe')
    for i in range(3):
        hub.update_scalar('train/loss', 1.0 / (i + 1))
    hub.update_info('palette', np.array([[1, 2, 3]], dtype=np.uint8))
    return {
        'meta': {'epoch': 1, 'iter': 3, 'seed': 0, 'sigmas': np.float32(0.5), 'dataset_meta': {'classes': ('a', 'b')}},
        'state_dict': OrderedDict(weight=torch.arange(4.0), flag=torch.tensor(True)),
        'message_hub': hub.state_dict(),
        'optimizer': {'state': {0: {'step': torch.tensor(3.0)}}, 'param_groups': [{'lr': 0.1, 'params': [0]}]},
    }


@pytest.mark.parametrize('zip_format', [True, False])
def test_reads_what_mmengine_writes(tmp_path, checkpoint, zip_format):
    path = tmp_path / 'epoch_1.pth'
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zip_format)
    read = safe.load(path)
    torch.testing.assert_close(read['state_dict'], checkpoint['state_dict'])
    history = read['message_hub']['log_scalars']['train/loss']
    assert isinstance(history, HistoryBuffer)
    np.testing.assert_array_equal(history.data[0], [1.0, 1 / 2, 1 / 3])
    assert history.statistics('min') == 1 / 3
    assert read['message_hub']['runtime_info']['palette'].dtype == np.uint8
    assert read['meta']['sigmas'] == np.float32(0.5)


@pytest.mark.parametrize('zip_format', [True, False])
@pytest.mark.parametrize('name', ['os.system', 'eval', 'getattr', 'getattr of an allowed class', 'class'])
def test_refuses_foreign_objects_and_executes_nothing(tmp_path, checkpoint, name, zip_format):
    mark = tmp_path / 'executed'
    payload, named = {
        'os.system': (Call(os.system, f'touch {mark}'), 'posix.system'),
        'eval': (Call(eval, f'open({str(mark)!r}, "w")'), 'eval'),
        'getattr': (Call(getattr, torch.Tensor, 'numpy'), 'getattr(Tensor,numpy)'),
        'getattr of an allowed class': (Call(getattr, HistoryBuffer, '__init__'), 'getattr(HistoryBuffer,__init__)'),
        'class': (pathlib.PurePosixPath('a'), f'{pathlib.PurePosixPath.__module__}.PurePosixPath'),
    }[name]
    path = tmp_path / 'foreign.pth'
    torch.save({**checkpoint, 'extra': payload}, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(safe.UnsafeCheckpointError, match='nothing in it was executed') as error:
        safe.load(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize('keep', [0.0, 0.3, 0.95])
def test_truncated_file_is_named(tmp_path, checkpoint, keep):
    whole, path = tmp_path / 'whole.pth', tmp_path / 'cut.pth'
    torch.save(checkpoint, whole)
    path.write_bytes(whole.read_bytes()[: int(keep * whole.stat().st_size)])
    with pytest.raises(safe.CheckpointError, match=r'cut\.pth: truncated, or not a torch checkpoint'):
        safe.load(path)


@pytest.mark.parametrize('content', [b'not a checkpoint', pickle.dumps({'weight': 1.0}), b'\x80\x02}q\x00.'])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    with pytest.raises(safe.CheckpointError, match=r'other\.pth'):
        safe.load(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r'^checkpoint: no such file: .*nowhere\.pth'):
        safe.load('nowhere.pth')


def test_mmengine_loads_through_it(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    safe.install()
    path = tmp_path / 'foreign.pth'
    torch.save({**checkpoint, 'extra': Call(os.system, 'true')}, path)
    with pytest.raises(safe.UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint(str(path))
    url = f'https://example.org/{path.name}'
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    path.rename(tmp_path / 'checkpoints' / path.name)  # as if downloaded before
    with pytest.raises(safe.UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint(url)


@pytest.mark.parametrize('imports', ['icconv_mm, mmengine.runner', 'mmengine.runner, icconv_mm'])
def test_importing_the_package_is_enough(tmp_path, checkpoint, imports):
    """Plain mmengine reads its own checkpoints and runs nothing in others, in either order of the imports."""
    mark, good, foreign = (tmp_path / name for name in ('executed', 'epoch_1.pth', 'foreign.pth'))
    torch.save(checkpoint, good)
    torch.save({**checkpoint, 'extra': Call(os.system, f'touch {mark}')}, foreign)
    code = f"""
        import {imports}
        from mmengine.runner import CheckpointLoader
        print('iter', CheckpointLoader.load_checkpoint({str(good)!r})['meta']['iter'])
        CheckpointLoader.load_checkpoint({str(foreign)!r})
    """
    # what users of mmengine set since torch 2.6, whose default would refuse the file, too
    env = dict(os.environ, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD='1')
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True, env=env)
    assert 'iter 3' in run.stdout, run.stderr
    assert 'UnsafeCheckpointError' in run.stderr and not mark.exists()


def test_the_runner_is_not_imported_for_it():
    code = 'import sys, icconv_mm; sys.exit("mmengine.runner" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
