"""Pickles that would crash an unpickler, hang it or fill the memory."""

import pickle
import zipfile

import pytest

from icconv_mm.checkpoints import safe


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
