"""Objects of numpy whose state a file has forged are refused."""

import numpy as np
import pytest
import torch
from pickled_calls import Call

from icconv_mm.checkpoints import safe


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
