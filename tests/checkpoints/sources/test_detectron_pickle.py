"""Detectron's pickles as files: protocols of either Python, and files that are damaged or hostile."""

import contextlib
import io
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch
from pickled_calls import Call

from icconv_mm.checkpoints import CheckpointError, UnsafeCheckpointError, convert_file, read_detectron


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize('protocol', [0, 1, 2, 3, 4])
def test_protocols_of_either_python(tmp_path, protocol):
    arrays = {
        'float': np.random.randn(2, 3).astype(np.float32),
        'double': np.random.randn(2),
        'big endian': np.arange(5, dtype='>f4'),
        'columns': np.asfortranarray(np.random.randn(3, 4)),
        'integer': np.arange(6).reshape(1, 2, 3),
        'empty': np.zeros((0, 3), np.float32),
    }
    content = {**arrays, 'scalar': np.float32(1.5), 'text': 'cfg', 'nothing': None}
    read = read_detectron(write(tmp_path / 'file.pkl', content, protocol))
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name].numpy(), array)


def test_bytes_of_python_2(tmp_path):
    """Python 2 wrote the numbers as text, which Python 3 decodes; here as its opcodes."""
    array = np.array([1.5, -2.0], np.float32)
    raw = array.tobytes()
    content = (
        b'\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85'
        b'cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U'
        + bytes([len(raw)])
        + raw
        + b'tbs.'
    )
    pickletools.dis(content, out=io.StringIO())
    (tmp_path / 'py2.pkl').write_bytes(content)
    np.testing.assert_array_equal(read_detectron(tmp_path / 'py2.pkl')['w'].numpy(), array)


@pytest.mark.parametrize(
    ('function', 'args', 'named'),
    [
        (os.system, ('touch {mark}',), 'posix.system'),
        (eval, ('open("{mark}", "w")',), r'(builtins|__builtin__)\.eval'),
        (getattr, (np.ndarray, 'tofile'), r'(builtins|__builtin__)\.getattr'),
        (np.load, ('{mark}',), r'numpy\.'),
        (torch.load, ('{mark}',), r'torch\.'),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_refuses_other_objects_and_executes_nothing(tmp_path, function, args, named, protocol):
    mark = tmp_path / 'executed'
    args = [arg.format(mark=mark) if isinstance(arg, str) else arg for arg in args]
    path = write(tmp_path / 'hostile.pkl', {'blobs': {'conv1_w': Call(function, *args)}}, protocol)
    with pytest.raises(UnsafeCheckpointError, match=rf'hostile\.pkl: refused, and nothing .* asks for {named}'):
        read_detectron(path)
    assert not mark.exists()
    with pytest.raises(UnsafeCheckpointError):
        convert_file(path, tmp_path / 'out.pth', 'detectron')
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize(
    'content',
    [
        b'cnumpy\nndarray\n(I999999999999\ntR.',  # numpy.ndarray called: a huge allocation
        b"cnumpy\nndarray\n}S'a'\nI1\nsb.",  # state for a class
        b'c_codecs\nencode\n(Vsecret\nVrot13\ntR.',
        b'',
        b'not a pickle',
        b'\x80\x02.',
        b'\x80\x02}q\x00',
        b'\x80\x63.',
        pickle.dumps([1, 2]),
        pickle.dumps({'blobs': {}}),
        pickle.dumps({'blobs': {'w': 1.0}}),
        pickle.dumps({'w': np.array([{}, None], dtype=object)}, 2),
        pickle.dumps({'w': np.array(['text'])}, 2),
        pickle.dumps({'w': np.zeros(2, dtype=[('a', 'f4'), ('b', 'i4')])}, 2),
    ],
    ids=range(14),
)
def test_files_that_are_no_weights(tmp_path, content):
    path = tmp_path / 'other.pkl'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r'other\.pkl: '):
        read_detectron(path)


def test_every_truncation_is_an_error(tmp_path):
    whole = pickle.dumps({'blobs': {'w': np.arange(9, dtype=np.float32), 'b': np.arange(2)}}, 2)
    path = tmp_path / 'cut.pkl'
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r'cut\.pkl: (truncated, or not a pickle|refused)'):
            read_detectron(path)


def test_damaged_bytes_do_no_harm(tmp_path):
    """Whatever byte changes, the file is read or refused; nothing else is raised."""
    whole = bytearray(pickle.dumps({'blobs': {'w': np.arange(9, dtype=np.float32)}}, 2))
    path = tmp_path / 'damaged.pkl'
    rng = np.random.RandomState(0)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in rng.randint(len(whole), size=2):
            damaged[place] = rng.randint(256)
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(CheckpointError):
            read_detectron(path)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r'^checkpoint: no such file: .*nowhere\.pkl'):
        read_detectron('nowhere.pkl')
