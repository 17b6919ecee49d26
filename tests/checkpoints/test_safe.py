"""Reading checkpoints runs no code from them, whatever they hold."""

import os
import pathlib
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader

from icconv_mm.checkpoints import safe


class Call:
    """Pickles as the call ``function(*args)``."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


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
    with pytest.raises(FileNotFoundError, match=r'nowhere\.pth: no such checkpoint file'):
        safe.load('nowhere.pth')


def test_the_list_in_torch_has_the_guard_and_not_getattr():
    safe.allow_in_torch()
    if not hasattr(torch.serialization, 'get_safe_globals'):
        pytest.skip('this torch has no list of allowed objects')
    allowed = torch.serialization.get_safe_globals()
    assert getattr not in allowed
    assert all(entry[0] is not getattr for entry in allowed if isinstance(entry, tuple))


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


class Writes(torch.nn.Module):
    """Compiled by TorchScript, a module whose state is set by code of the file."""

    def forward(self, x):
        return x


def test_a_torchscript_archive_is_refused(tmp_path, monkeypatch):
    """``torch.load`` of torch < 2.6 passes one on to ``torch.jit.load`` even with an unpickler of the caller's."""
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('it was loaded'))
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was left to torch.load'))
    path = tmp_path / 'script.pth'
    torch.jit.script(Writes()).save(str(path))
    with pytest.raises(safe.UnsafeCheckpointError, match='it asks for code: it is a TorchScript archive'):
        safe.load(path)


class Forged:
    """Pickles as ``function(*args)`` with a state of the file's choice."""

    def __init__(self, function, args, state):
        self.reduced = function, args, state

    def __reduce__(self):
        return self.reduced


def forged_array(shape, dtype, data):
    reconstruct, args, _ = np.zeros(1).__reduce__()
    return Forged(reconstruct, args, (1, shape, dtype, False, data))


FORGED_SIZE = Forged(np.dtype, ('V16', False, True), (3, '|', None, None, None, 4, 1, 0))
FORGED = {
    'fields without a type': Forged(np.dtype, ('V8', False, True), (3, '|', None, ('a',), {'a': (1, 0)}, 8, 1, 0)),
    'subtype': Forged(np.dtype, ('f8', False, True), (3, '<', (1, 2), None, None, -1, -1, 0)),
    'names of a number': Forged(np.dtype, ('f8', False, True), (3, '<', None, ('a', 'b'), {}, 8, 8, 27)),
    'size of a number': forged_array((2,), FORGED_SIZE, b'1'),
    'array of objects': forged_array((1,), np.dtype('O'), b'\1' * 8),
    'too few bytes': forged_array((1000,), np.dtype('f8'), b'12345678'),
    'negative shape': forged_array((-1, -1), np.dtype('f8'), b'12345678'),
    'no state': forged_array((1,), np.dtype, b'12345678'),
    'called': Call(np.ndarray, (10**12,)),
}


@pytest.mark.parametrize('name', FORGED)
def test_forged_states_of_numpy_objects_are_refused(tmp_path, name):
    """numpy's own ``__setstate__`` believes them: such an object ends the process when it is used or freed."""
    path = tmp_path / 'forged.pth'
    torch.save({'state_dict': {}, 'meta': {'extra': FORGED[name]}}, path)
    with pytest.raises(safe.CheckpointError, match=r'forged\.pth: '):
        safe.load(path)
    if hasattr(torch.serialization, 'get_safe_globals'):  # what the import has added to torch's own list
        with pytest.raises(Exception, match=r'numpy|array|int|NoneType|subscriptable|unpack'):
            torch.load(path, weights_only=True)


def test_bytes_that_are_no_bool_become_true(tmp_path):
    path = tmp_path / 'bools.pth'
    torch.save({'flags': torch.tensor([0, 1, 2, 255], dtype=torch.uint8).view(torch.bool)}, path)
    assert safe.load(path)['flags'].view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_tensors_keep_what_they_share(tmp_path):
    whole = torch.arange(6.0)
    content = {'whole': whole, 'part': whole[2:], 'turned': whole.view(2, 3).T, 'wide': torch.ones(1).expand(3, 4)}
    content['half'] = torch.ones(2, dtype=torch.bfloat16)
    content['parameter'] = torch.nn.Parameter(torch.ones(2))
    for zip_format in (True, False):
        torch.save(content, tmp_path / 'shared.pth', _use_new_zipfile_serialization=zip_format)
        read = safe.load(tmp_path / 'shared.pth')
        torch.testing.assert_close(read, content)
        assert read['turned'].stride() == (1, 3) and isinstance(read['parameter'], torch.nn.Parameter)
        read['whole'][2] = 100
        assert read['part'][0] == 100


@pytest.mark.parametrize('zip_format', [True, False])
@pytest.mark.parametrize('where', ['meta', torch.device('meta'), {'cpu': 'meta'}, lambda storage, location: storage])
def test_map_location(tmp_path, where, zip_format):
    torch.save({'weight': torch.ones(3)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format)
    device = safe.load(tmp_path / 'a.pth', where)['weight'].device.type
    assert device == ('cpu' if callable(where) else 'meta')


def repeated(times: int, start: bytes, step: bytes, end: bytes) -> bytes:
    return b'\x80\x02' + start + step * times + end + b'.'


COLLIDING = b''.join(pickle.dumps(i * (2**61 - 1), 2)[2:-1] + b'N' for i in range(1, 99))
NO_STATE = b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R'
HARMFUL = {
    'a tuple in a tuple in ...': repeated(1_000_000, b'N', b'\x85', b''),
    'the same as a key': repeated(1_000_000, b'}N', b'\x85', b'Ns'),
    'a list that holds itself': b'\x80\x02]q\x00h\x00a.',
    'keys whose hashes collide': repeated(1, b'}(', COLLIDING, b'u'),
    'a large memo number': b'\x80\x02Nr\xff\xff\xff\x7fj\xfe\xff\xff\x7f.',
    'a long string that is not there': b'\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x00a.',
    'a mark too few': b'\x80\x02Nt.',
    'nothing on the stack': b'\x80\x020.',
    'a call of a tensor': b'\x80\x02]]R.',
    'an item of a number': b'\x80\x02K\x01K\x02K\x03s.',
    'text given a state': b'\x80\x02U\x01a}b.',
    'an array without its state': repeated(1, NO_STATE, b'', b''),
    'a persistent id': b'\x80\x02NQ.',
    'an out-of-band buffer': b'\x80\x05\x97.',
}


@pytest.mark.parametrize('name', HARMFUL)
def test_pickles_that_would_crash_or_hang(tmp_path, name):
    path = tmp_path / 'harmful.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', HARMFUL[name])
        archive.writestr('a/version', '3')
    with pytest.raises(safe.CheckpointError, match=r'harmful\.pth: truncated, or not'):
        safe.load(path)


def test_parts_of_a_file_used_again_and_again(tmp_path):
    """A file of some kilobytes that would become some gigabytes."""
    text = b'X' + (1_000_000).to_bytes(4, 'little') + b'a' * 1_000_000 + b'q\x00'
    calls = b'c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0' * 2000
    path = tmp_path / 'many.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', b'\x80\x02' + text + b'0' + calls + b'N.')
    with pytest.raises(safe.CheckpointError, match='it uses parts of itself too often'):
        safe.load(path)


def test_importing_the_package_is_enough(tmp_path, checkpoint):
    """Plain mmengine reads its own checkpoints after ``import icconv_mm``."""
    path = tmp_path / 'epoch_1.pth'
    torch.save(checkpoint, path)
    code = f"""
        import mmengine.runner, icconv_mm
        from mmengine.runner import CheckpointLoader
        print(CheckpointLoader.load_checkpoint({str(path)!r})['meta']['iter'])
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == '3'
