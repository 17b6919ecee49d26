"""Checkpoints from nowhere: read, or refused in one message; nothing of them runs, crashes or hangs."""

import contextlib
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from torch import nn

from icconv_mm.checkpoints import metadata, read_detectron, reading
from icconv_mm.checkpoints.convert import checked_weights
from icconv_mm.checkpoints.matching import check_fits
from icconv_mm.errors import InputError


class Call:
    """Pickles as the call ``function(*args)``, or as an object with a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def text(value: str) -> bytes:
    return b'X' + struct.pack('<I', len(value)) + value.encode()


NAMES = [
    'builtins.eval',
    'builtins.exec',
    'builtins.getattr',
    'os.system',
    'posix.system',
    'subprocess.Popen',
    'numpy.load',
    'numpy.ndarray',
    'numpy.dtype',
    'numpy.core.multiarray._reconstruct',
    'numpy.core.multiarray.scalar',
    'numpy._core.multiarray.scalar',
    'torch.load',
    'torch.jit.load',
    'torch.hub.load',
    'torch._utils._rebuild_tensor_v2',
    'torch._utils._rebuild_tensor_v3',
    'torch.Size',
    'torch._utils._rebuild_parameter',
    'torch._utils._rebuild_sparse_tensor',
    'torch._tensor._rebuild_from_type_v2',
    'torch.device',
    'torch.nn.parameter.Parameter',
    'torch.FloatStorage',
    'torch.BoolStorage',
    'torch.float32',
    'torch.Tensor',
    'collections.OrderedDict',
    'collections.Counter',
    'collections.defaultdict',
    'builtins.set',
    'builtins.frozenset',
    'builtins.complex',
    'builtins.bytes',
    '_codecs.encode',
    'copyreg._reconstructor',
    'mmengine.logging.history_buffer.HistoryBuffer',
    'mmengine.Config',
]
ATOMS = st.one_of(
    st.sampled_from([b'N', b'\x88', b'\x89', b')', b']', b'}', b'\x8f', b'(', b'2', b'0', b'1']),
    st.sampled_from(NAMES).map(lambda name: b'c%s\n%s\n' % tuple(name.encode().rsplit(b'.', 1))),
    st.integers(-(2**31), 2**31 - 1).map(lambda n: b'J' + struct.pack('<i', n)),
    st.integers(0, 255).map(lambda n: b'K' + bytes([n])),
    st.integers(-(2**70), 2**70).map(lambda n: pickle.dumps(n, 2)[2:-1]),
    st.floats().map(lambda n: b'G' + struct.pack('>d', n)),
    st.sampled_from(['storage', '0', 'cpu', 'meta', 'cuda:0', 'f4', 'O8', 'V8', 'latin1', 'rot13', 'min', '<']).map(
        text
    ),
    st.binary(max_size=20).map(lambda data: b'C' + bytes([len(data)]) + data),
)
MOVES = st.sampled_from(
    [b'R', b'\x81', b'b', b't', b'\x85', b'\x86', b'\x87', b'a', b'e', b's', b'u', b'l', b'd', b'Q']
)
MEMOS = st.tuples(st.sampled_from([b'q', b'h']), st.integers(0, 5)).map(lambda pair: pair[0] + bytes([pair[1]]))
PICKLES = st.lists(st.one_of(ATOMS, ATOMS, MOVES, MEMOS), max_size=60).map(
    lambda parts: b'\x80\x02' + b''.join(parts) + b'.'
)


def archive(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as zip_file:
        zip_file.writestr('a/data.pkl', data)
        zip_file.writestr('a/data/0', bytes(range(64)))
    return file.getvalue()


def read(path: Path, tmp: str = '/nonexistent') -> object:
    """What :func:`reading.read` returns; None for a refusal, which names the file."""
    try:
        return reading.read(path)
    except reading.CheckpointError as error:
        assert str(path) in str(error) and len(str(error)) < 5000
        return None


@given(data=PICKLES)
def test_pickles_of_any_opcodes(case, data):
    content = read(case.holds(archive(data)))
    for use in (
        metadata.dataset_meta_of,
        metadata.seed_of,
        lambda c: check_fits(nn.Linear(2, 2), c, 'a.pth'),
        checked_weights,
    ):
        with contextlib.suppress(InputError):
            use(content)


@given(data=PICKLES)
def test_pickles_of_detectron(case, data):
    with contextlib.suppress(reading.CheckpointError):
        read_detectron(case.holds(data))


def checkpoint() -> dict:
    buffer = HistoryBuffer()
    buffer.update(1.5)
    hub = {
        'log_scalars': {'loss': buffer},
        'runtime_info': {'palette': np.ones((2, 3), 'u1')},
        'resumed_keys': {'loss': True},
    }
    return {
        'meta': {'epoch': 1, 'iter': 3, 'seed': 0, 'scale': np.float32(2), 'dataset_meta': {'classes': ('a', 'b')}},
        'state_dict': nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict(),
        'message_hub': hub,
    }


def written(zip_format: bool) -> bytes:
    file = io.BytesIO()
    torch.save(checkpoint(), file, _use_new_zipfile_serialization=zip_format)
    return file.getvalue()


@pytest.mark.parametrize('zip_format', [True, False])
@given(data=st.data())
def test_damaged_files(case, zip_format, data):
    whole = bytearray(written(zip_format))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        kind = data.draw(st.sampled_from(['change', 'change', 'cut', 'remove', 'insert', 'repeat']))
        end = place + data.draw(st.integers(0, 40))
        if kind == 'change':
            whole[place] = data.draw(st.integers(0, 255))
        elif kind == 'cut':
            del whole[place:]
        elif kind == 'remove':
            del whole[place:end]
        elif kind == 'insert':
            whole[place:place] = data.draw(st.binary(max_size=20))
        else:
            whole[place:place] = whole[place:end]
        if not whole:
            break
    read(case.holds(bytes(whole)))


MARK = Path(f'/tmp/icconv_mm_attack_{os.getpid()}')
PAYLOADS = [
    Call(os.system, (f'touch {MARK}',)),
    Call(eval, (f'open({str(MARK)!r}, "w")',)),
    Call(getattr, (HistoryBuffer, '__init__')),
    Call(np.dtype, ('V8', False, True), (3, '|', None, ('a',), {'a': (1, 0)}, 8, 1, 0)),
    Call(np.ndarray, ((10**12,),)),
    Call(torch.load, (str(MARK),)),
]
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=8), st.integers(-(2**60), 2**60)), inner, max_size=4),
        st.tuples(inner, inner),
    ),
    max_leaves=12,
)


@given(
    place=st.lists(st.sampled_from(['meta', 'state_dict', 'message_hub']), min_size=1, max_size=2),
    payload=st.integers(0, 5),
)
def test_payloads_anywhere(case, place, payload):
    content = checkpoint()
    for name in place:
        content[name]['extra'] = PAYLOADS[payload]
    file = io.BytesIO()
    torch.save(content, file)
    assert read(case.holds(file.getvalue())) is None
    assert not MARK.exists()


FIELDS = [
    'state_dict',
    'meta',
    'meta.iter',
    'meta.epoch',
    'meta.seed',
    'meta.dataset_meta',
    'message_hub',
    'meta.CLASSES',
]
FIELDS += ['message_hub.runtime_info', 'message_hub.log_scalars', 'meta.dataset_meta.classes']


@given(changes=st.lists(st.tuples(st.sampled_from(FIELDS), PLAIN), min_size=1, max_size=3))
def test_anything_in_any_field(case, changes):
    """Whatever a checkpoint says about itself, all that reads it answers with a result or one message."""
    content = checkpoint()
    for field, value in changes:
        *path, last = field.split('.')
        node = content
        for name in path:
            node = node.get(name) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[last] = value
    file = io.BytesIO()
    torch.save(content, file)
    content = read(case.holds(file.getvalue()))
    layer = nn.Linear(2, 2)
    for use in (
        metadata.dataset_meta_of,
        lambda c: metadata.check_progress(c, None, 100),
        lambda c: metadata.check_message_hub(c, [Path('/tmp')]),
        lambda c: check_fits(layer, c, 'a.pth'),
        checked_weights,
    ):
        if content is not None:
            try:
                use(content)
            except InputError as error:
                assert len(str(error)) < 2000
