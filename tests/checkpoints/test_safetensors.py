"""The format safetensors: as its library reads and writes it; bytes that are not as the header says are refused."""

import io
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icconv_mm.checkpoints import reading, safetensors
from icconv_mm.errors import InputError

DTYPES = [
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16,
    torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


def tensors():
    """A tensor of each dtype, an empty one, a scalar, a transposed one, and two that share memory."""
    numbers = torch.arange(-6.0, 6).reshape(3, 4)
    shared = torch.arange(5) / 3
    found = {str(dtype): (numbers > 0 if dtype == torch.bool else numbers.abs()).to(dtype) for dtype in DTYPES}
    return found | dict(empty=torch.zeros(0, 3), scalar=torch.tensor(7), transposed=numbers.T, one=shared, other=shared)


def same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and tensor.shape == other[name].shape, name
        bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (tensor, other[name])]
        assert torch.equal(*bits), name


def written(header, data=b'', length=None):
    """A file's content; ``header`` may be bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, 'little') + text + data


def entry(shape, offsets, dtype='F32', **more):
    return dict(dtype=dtype, shape=shape, data_offsets=offsets, **more)


def test_round_trip(tmp_path):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(safetensors.serialized(tensors(), dict(task='detection', name='ü')))
    found = reading.read(path)
    same(found, tensors())
    assert reading.read_metadata(path) == dict(task='detection', name='ü')
    path.write_bytes(safetensors.serialized(tensors()))
    assert reading.read_metadata(path) == {}
    found['one'].fill_(3)
    assert not found['other'].eq(3).any(), 'each tensor has its own memory'


def test_the_library_reads_and_writes_the_same(tmp_path):
    library = pytest.importorskip('safetensors.torch')
    path, given = tmp_path / 'weights.safetensors', {k: v.clone().contiguous() for k, v in tensors().items()}
    library.save_file(given, path, metadata=dict(format='pt'))
    same(reading.read(path), given)
    assert reading.read_metadata(path) == dict(format='pt')
    path.write_bytes(safetensors.serialized(tensors(), dict(format='pt')))
    same(library.load_file(path), given)


def test_a_device_is_taken(tmp_path):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(safetensors.serialized(dict(a=torch.ones(2))))
    assert reading.read(path, 'meta')['a'].is_meta and reading.read(path, torch.device('meta'))['a'].is_meta
    assert not reading.read(path, None)['a'].is_meta and not reading.read(path, lambda storage, _: storage)['a'].is_meta


HOSTILE = {
    'empty': b'',
    'seven bytes': b'\x02\0\0\0\0\0\0',
    'no header': written(b'{}', length=1 << 60),
    'a header longer than the file': written({}, length=3),
    'a header of nothing': written(b''),
    'no JSON': written(b'{"a": '),
    'no text': written(b'{"\xff": 1}'),
    'a list': written([]),
    'nested without end': written(b'{"a":' + b'[' * 100_000),
    'an entry of numbers': written({'a': 3}),
    'no offsets': written({'a': dict(dtype='F32', shape=[1])}),
    'more than it has': written({'a': entry([1], [0, 4], more=1)}, bytes(4)),
    'an unknown dtype': written({'a': entry([1], [0, 4], 'F4')}, bytes(4)),
    'a dtype that is none': written({'a': entry([1], [0, 4], ['F32'])}, bytes(4)),
    'a negative size': written({'a': entry([-1, -1], [0, 4])}, bytes(4)),
    'a size that is a bool': written({'a': entry([True], [0, 4])}, bytes(4)),
    'a size with a fraction': written({'a': entry([1.0], [0, 4])}, bytes(4)),
    'a huge size': written({'a': entry([2**64], [0, 4])}, bytes(4)),
    'sizes that overflow': written({'a': entry([2**32, 2**32], [0, 0])}),
    'too many dimensions': written({'a': entry([1] * 65, [0, 4])}, bytes(4)),
    'three offsets': written({'a': entry([1], [0, 4, 8])}, bytes(4)),
    'offsets that are no list': written({'a': entry([1], '04')}, bytes(4)),
    'bytes that are not there': written({'a': entry([2], [0, 8])}, bytes(4)),
    'fewer bytes than the shape': written({'a': entry([2], [0, 4])}, bytes(4)),
    'backwards': written({'a': entry([1], [4, 0])}, bytes(4)),
    'an overlap': written({'a': entry([2], [0, 8]), 'b': entry([2], [4, 12])}, bytes(12)),
    'the same bytes': written({'a': entry([1], [0, 4]), 'b': entry([1], [0, 4])}, bytes(4)),
    'a gap': written({'a': entry([1], [0, 4]), 'b': entry([1], [8, 12])}, bytes(12)),
    'bytes that nobody has': written({'a': entry([1], [0, 4])}, bytes(5)),
    'a name twice': written(b'{"a":%b,"a":%b}' % ((json.dumps(entry([1], [0, 4])).encode(),) * 2), bytes(4)),
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_hostile_files(tmp_path, kind):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(reading.CheckpointError, match=r'weights\.safetensors: truncated, or not a safetensors .*: \w'):
        reading.read(path)
    with open(path, 'rb') as file, pytest.raises(reading.CheckpointError, match=r'https://a/b\.safetensors: truncated'):
        reading.read_stream(file, 'https://a/b.safetensors')


@pytest.mark.parametrize('metadata', [[], {'a': 1}, 'text'])
def test_hostile_metadata(tmp_path, metadata):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(written({'__metadata__': metadata}))
    with pytest.raises(reading.CheckpointError, match='__metadata__ is no dict of texts'):
        reading.read_metadata(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_are_read_or_refused(data):
    """No other exception, and never more memory than the file has."""
    content = bytearray(
        safetensors.serialized(dict(a=torch.rand(3, 2), b=torch.ones(4, dtype=torch.bool)), dict(c='d'))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        found = reading.read_stream(io.BytesIO(content), 'drawn.safetensors')
    except reading.CheckpointError:
        return
    assert sum(tensor.nbytes for tensor in found.values()) <= len(content)
    assert all(tensor.view(torch.uint8).max() <= 1 for tensor in found.values() if tensor.dtype == torch.bool)


@pytest.mark.parametrize('given', [dict(a=torch.zeros(1, dtype=torch.complex128)), dict(__metadata__=torch.zeros(1))])
def test_what_the_format_has_not_is_not_written(given):
    with pytest.raises(InputError, match='the format safetensors has no tensor of'):
        safetensors.serialized(given)
