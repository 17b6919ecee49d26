"""Reading checkpoints runs no code from them, whatever they hold."""

import hashlib
import io
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from pickled_calls import Call
from servers import answering_server

from icconv_mm.checkpoints import loader, reading
from icconv_mm.fetch import FetchError


@pytest.fixture
def checkpoint():
    """What mmengine's runner writes, in small."""
    hub = MessageHub('test_reading')
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
    read = reading.read(path)
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
        'eval': (Call(eval, f'open({str(mark)!r}, "w")'), 'builtins.eval'),
        'getattr': (Call(getattr, torch.Tensor, 'numpy'), 'builtins.getattr'),
        'getattr of an allowed class': (Call(getattr, HistoryBuffer, '__init__'), 'builtins.getattr'),
        'class': (pathlib.PurePosixPath('a'), f'{pathlib.PurePosixPath.__module__}.PurePosixPath'),
    }[name]
    path = tmp_path / 'foreign.pth'
    torch.save({**checkpoint, 'extra': payload}, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(reading.UnsafeCheckpointError, match='nothing in it was executed') as error:
        reading.read(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize('keep', [0.0, 0.3, 0.95])
def test_truncated_file_is_named(tmp_path, checkpoint, keep):
    whole, path = tmp_path / 'whole.pth', tmp_path / 'cut.pth'
    torch.save(checkpoint, whole)
    path.write_bytes(whole.read_bytes()[: int(keep * whole.stat().st_size)])
    with pytest.raises(reading.CheckpointError, match=r'cut\.pth: truncated, or not a torch checkpoint'):
        reading.read(path)


@pytest.mark.parametrize('content', [b'<html>Quota exceeded</html>', pickle.dumps({'weight': 1.0}), b'\x80\x02}q\x00.'])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / 'other.pth'
    path.write_bytes(content)
    with pytest.raises(reading.CheckpointError, match=r'other\.pth'):
        reading.read(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r'^checkpoint: no such file: .*nowhere\.pth'):
        reading.read('nowhere.pth')


def test_mmengine_loads_through_it(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    loader.patch_checkpoint_loading()
    path = tmp_path / 'foreign.pth'
    torch.save({**checkpoint, 'extra': Call(os.system, 'true')}, path)
    with pytest.raises(reading.UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint(str(path))
    url = f'https://example.org/{path.name}'
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    path.rename(loader.cached_weights(url))  # as if downloaded before
    with pytest.raises(reading.UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint(url)
    monkeypatch.setattr('mmengine.runner.checkpoint.get_torchvision_models', lambda: {'foreign': url})
    with pytest.raises(reading.UnsafeCheckpointError):
        CheckpointLoader.load_checkpoint('torchvision://foreign')


def test_weights_of_an_address(tmp_path, checkpoint, monkeypatch):
    """Cut answers and pages of portals are not kept, addresses of equal ends stay apart, hashes are checked."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    answers = {}
    with answering_server(lambda path: answers[path]) as address:

        def put(path, value, **options):
            torch.save({**checkpoint, 'value': value}, file := io.BytesIO())
            answers[path] = dict(content=file.getvalue()) | options

        put('/cut.pth', 1, length=10**6)
        answers['/portal.pth'] = dict(content=b'<html>please log in</html>')
        with pytest.raises(FetchError, match=r'/cut\.pth: cannot be fetched \(\d+ of 1000000 bytes came\)'):
            loader.load_from_http(f'{address}/cut.pth')
        with pytest.raises(reading.CheckpointError, match=r'^http.*/portal\.pth: '):
            loader.load_from_http(f'{address}/portal.pth')
        assert not list(tmp_path.rglob('*.pth')) and not list(tmp_path.rglob('.icconv*'))
        for number, path in enumerate(
            ('/cut.pth', '/portal.pth', '/a/epoch_12.pth', '/b/epoch_12.pth', '/b/epoch_12.pth?x')
        ):
            put(path, number)
            assert loader.load_from_http(address + path)['value'] == number
        for number, path in enumerate(('/a/best-20240131.pth', '/b/best-20240131.pth')):  # a date is no hash
            put(path, number)
            assert loader.load_from_http(address + path)['value'] == number
        monkeypatch.setattr(loader, '_HASHED', (address,))  # who publishes the hash in the name
        put('/net-0123abcd.pth', 5)
        with pytest.raises(reading.CheckpointError, match=r'net-0123abcd\.pth: has the SHA-256 [0-9a-f]{64}, not'):
            loader.load_from_http(f'{address}/net-0123abcd.pth')
        path = f'/net-{hashlib.sha256(answers["/net-0123abcd.pth"]["content"]).hexdigest()[:8]}.pth'
        answers[path] = answers['/net-0123abcd.pth']
        file = tmp_path / 'checkpoints' / path[1:]  # as torch calls it
        file.write_bytes(b'of another server')
        for _ in range(2):
            assert loader.load_from_http(address + path)['value'] == 5
            assert file.read_bytes() == answers[path]['content']
        answers.clear()
        assert loader.load_from_http(address + path)['value'] == 5  # it is there


def test_onedl_mmengine_reads_storage_backends_through_it(tmp_path, checkpoint, monkeypatch):
    """What torch's safe reader refuses, it would read as a plain pickle; mmengine has no such reader."""
    from mmengine.runner import checkpoint as module

    forked = hasattr(module, '_safe_torch_load')
    monkeypatch.setattr(CheckpointLoader, '_schemes', dict(CheckpointLoader._schemes))
    monkeypatch.setattr(module, 'load_from_http', module.load_from_http)
    monkeypatch.setattr(module, '_safe_torch_load', partial(torch.load, weights_only=False), raising=False)
    loader.patch_checkpoint_loading()
    good, foreign = tmp_path / 'epoch_1.pth', tmp_path / 'foreign.pth'
    torch.save(checkpoint, good)
    torch.save({**checkpoint, 'extra': Call(os.getcwd)}, foreign)
    assert module._safe_torch_load(str(good))['meta']['iter'] == 3
    assert module._safe_torch_load(io.BytesIO(good.read_bytes()), map_location='cpu')['meta']['iter'] == 3
    for file in (str(foreign), io.BytesIO(foreign.read_bytes())):
        with pytest.raises(reading.UnsafeCheckpointError, match='getcwd'):
            module._safe_torch_load(file)
    if forked:
        with pytest.raises(reading.UnsafeCheckpointError, match='a checkpoint of a storage backend: refused'):
            module.load_from_ceph(str(foreign), backend='local')


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


# --- pickles by opcodes

FUNCTION = b'ctorch._utils\n_rebuild_tensor\n'
DTYPE = b'cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R'


def plain(value) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def storage(count=4, key='0', kind='FloatStorage', view=b'') -> bytes:
    named = plain('storage') + f'ctorch\n{kind}\n'.encode()
    return b'(' + named + b''.join(map(plain, (key, 'cpu', count))) + view + b'tQ'


def tensor(stored=None, offset=0, size=(2, 2), stride=(2, 1)) -> bytes:
    return FUNCTION + b'(' + (stored or storage()) + b''.join(map(plain, (offset, size, stride))) + b'tR'


def archive(path, content: bytes):
    """A file with four numbers, in the format since torch 1.6."""
    with zipfile.ZipFile(path, 'w') as zip_file:
        zip_file.writestr('a/data.pkl', b'\x80\x02' + content + b'.')
        zip_file.writestr('a/version', '3')
        zip_file.writestr('a/data/0', np.arange(4, dtype='f4').tobytes())
    return path


def older(path, content: bytes, keys=('0',)):
    """The same in the format before torch 1.6."""
    beside = (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True})
    end = pickle.dumps(list(keys), 2) + (4).to_bytes(8, 'little') + np.arange(4, dtype='f4').tobytes()
    path.write_bytes(b''.join(pickle.dumps(value, 2) for value in beside) + b'\x80\x02' + content + b'.' + end)
    return path


REFUSED = {
    'a storage longer than the file has it': tensor(storage(1000), size=(1000,), stride=(1,)),
    'a storage of less than nothing': tensor(storage(-1)),
    'a storage that is not there': tensor(storage(key='1')),
    'a storage of no known type': tensor(b'(' + plain('storage') + b'NU\x010U\x03cpuK\x04tQ'),
    'numbers beyond the storage': tensor(size=(20, 2)),
    'numbers before the storage': tensor(offset=-1),
    'steps back': tensor(offset=3, stride=(-1, 1)),
    'shape and strides that do not fit': tensor(stride=(1,)),
    'bools of other numbers': b'ctorch._utils\n_rebuild_tensor_v3\n('
    + storage()
    + b''.join(map(plain, (0, (4,), (1,), False)))
    + b'Nctorch\nbool\ntR',
    'a state of a tensor': tensor() + b'(' + storage() + b''.join(map(plain, (0, (9,), (1,)))) + b'tb',
    'a state of a type': b'ctorch\nFloatStorage\n}U\x05dtypeNsb',
    'a state of a function': FUNCTION + b'}U\x01aNsb',
    'items of a tensor': tensor() + b'K\x00K\x01s',
    'items of an array': b'cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R(K\x00K\x01u',
    'a state of text': b'U\x01a}b',
    'fields of a dtype': DTYPE + b'(K\x03U\x01<K\x01U\x01aNK\x04K\x04K\x00tb',
    'a call of a list': b']]R',
    'a call of a dtype': DTYPE + b')R',
    'a call by other opcodes': b'(' + FUNCTION + b'o',
    'an object of a class': b'(itorch._utils\n_rebuild_tensor\n',
    'an extension by number': b'\x82\x01',
    'another persistent id': b'NQ',
    'an out-of-band buffer': b'\x97',
    'a log without values': b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}b',
    'a mark too few': b'Nt',
    'nothing on the stack': b'0',
    'a string that is not there': b'\x8d\xff\xff\xff\xff\xff\xff\xff\x00a',
}


@pytest.mark.parametrize('name', REFUSED)
def test_pickles_that_no_library_writes(tmp_path, name):
    path = archive(tmp_path / 'odd.pth', REFUSED[name])
    with pytest.raises(reading.CheckpointError, match=r'odd\.pth: truncated, or not'):
        reading.read(path)


def test_pickles_by_opcodes_are_read(tmp_path):
    """Those above are refused for what their names say."""
    for path in (archive(tmp_path / 'a.pth', tensor()), older(tmp_path / 'b.pth', tensor(storage(view=b'N')))):
        assert reading.read(path).tolist() == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ('content', 'keys', 'message'),
    [
        (tensor(storage(view=b'N')), (), 'a storage without its numbers'),
        (tensor(storage(5, view=b'N')), '0', 'wrong byte size'),
        (tensor(storage(view=b'(U\x01vK\x09K\x02t')), '0', 'a persistent id that is no storage'),
        (b'(U\x06modulectorch\nTensor\nU\x01aU\x01btQ', '0', 'a persistent id|not enough values'),
    ],
)
def test_storages_of_the_older_format(tmp_path, content, keys, message):
    with pytest.raises(reading.CheckpointError, match=message):
        reading.read(older(tmp_path / 'odd.pth', content, keys))


def test_torch_does_not_unpack_a_tar_archive(tmp_path):
    """As torch wrote before 0.1.10: ``torch.load`` writes its members to the disk."""
    with tarfile.open(tmp_path / 'a.pth', 'w') as tar:
        tar.add(__file__, 'storages')
    with pytest.raises(reading.CheckpointError, match='a tar archive'):
        reading.read(tmp_path / 'a.pth')


def test_where_torch_takes_no_reader_but_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
    torch.save({}, tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r'TORCH_FORCE_WEIGHTS_ONLY_LOAD is set, .*: unset it'):
        reading.read(tmp_path / 'a.pth')


# --- arrays, archives, tensors


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
    'a function for a dtype': forged_array((1,), np.dtype, b'12345678'),
    'too many sides': forged_array((0,) * 100, np.dtype('f8'), b''),
    'called': Call(np.ndarray, (10**12,)),
}


@pytest.mark.parametrize('name', FORGED)
def test_forged_states_of_numpy_objects_are_refused(tmp_path, name):
    """numpy's own ``__setstate__`` believes them: such an object ends the process when it is used or freed."""
    path = tmp_path / 'forged.pth'
    torch.save({'state_dict': {}, 'meta': {'extra': FORGED[name]}}, path)
    with pytest.raises(reading.CheckpointError, match=r'forged\.pth: '):
        reading.read(path)


class Writes(torch.nn.Module):
    """Compiled by TorchScript, a module whose state is set by code of the file."""

    def forward(self, x):
        return x


def test_a_torchscript_archive_is_refused(tmp_path, monkeypatch):
    """``torch.load`` passes one on to ``torch.jit.load`` even with an unpickler of the caller's."""
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('it was loaded'))
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was left to torch.load'))
    path = tmp_path / 'script.pth'
    torch.jit.script(Writes()).save(str(path))
    with pytest.raises(reading.UnsafeCheckpointError, match='it asks for code: it is a TorchScript archive'):
        reading.read(path)


@pytest.mark.parametrize('member', ['data.pkl', 'data/0'])
def test_an_archive_with_a_member_twice(tmp_path, checkpoint, member):
    """Readers differ in which one they take."""
    whole, path = tmp_path / 'whole.pth', tmp_path / 'twice.pth'
    torch.save(checkpoint, whole)
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(path, 'w') as copy:
        for name in archive.namelist():
            copy.writestr(name, archive.read(name))
        with pytest.warns(UserWarning, match='Duplicate name'):
            copy.writestr(f'whole/{member}', archive.read(f'whole/{member}')[::-1])
    with pytest.raises(reading.CheckpointError, match=rf'twice\.pth: .*{member} is in it twice'):
        reading.read(path)


def test_bytes_that_are_no_bool_become_true(tmp_path):
    path = tmp_path / 'bools.pth'
    torch.save({'flags': torch.tensor([0, 1, 2, 255], dtype=torch.uint8).view(torch.bool)}, path)
    assert reading.read(path)['flags'].view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_tensors_keep_what_they_share(tmp_path):
    whole = torch.arange(6.0)
    content = {'whole': whole, 'part': whole[2:], 'transposed': whole.view(2, 3).T, 'wide': torch.ones(1).expand(3, 4)}
    content['half'] = torch.ones(2, dtype=torch.bfloat16)
    content['parameter'] = torch.nn.Parameter(torch.ones(2))
    for zip_format in (True, False):
        torch.save(content, tmp_path / 'shared.pth', _use_new_zipfile_serialization=zip_format)
        read = reading.read(tmp_path / 'shared.pth')
        torch.testing.assert_close(read, content)
        assert read['transposed'].stride() == (1, 3) and isinstance(read['parameter'], torch.nn.Parameter)
        read['whole'][2] = 100
        assert read['part'][0] == 100


@pytest.mark.parametrize('zip_format', [True, False])
@pytest.mark.parametrize('where', ['meta', torch.device('meta'), {'cpu': 'meta'}, lambda storage, location: storage])
def test_map_location(tmp_path, where, zip_format):
    torch.save({'weight': torch.ones(3)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format)
    device = reading.read(tmp_path / 'a.pth', where)['weight'].device.type
    assert device == ('cpu' if callable(where) else 'meta')


@pytest.mark.parametrize('tensor', [torch.tensor([1 + 2j]).conj(), torch.tensor([1 + 2j]).conj().imag])
def test_lazy_signs_are_not_lost(tmp_path, tensor):
    torch.save({'w': tensor}, tmp_path / 'a.pth')
    with pytest.raises(reading.CheckpointError, match='lazy conjugation or negation'):
        reading.read(tmp_path / 'a.pth')
    torch.save({'w': tensor.resolve_conj().resolve_neg()}, tmp_path / 'a.pth')
    assert torch.equal(reading.read(tmp_path / 'a.pth')['w'], tensor)
