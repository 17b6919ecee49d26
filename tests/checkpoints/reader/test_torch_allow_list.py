"""What torch's own reader may make of a file after ``import icconv_mm``."""

import pytest
import torch

from icconv_mm.checkpoints import safe


def test_the_list_in_torch_has_the_guard_and_not_getattr():
    safe.allow_in_torch()
    if not hasattr(torch.serialization, 'get_safe_globals'):
        pytest.skip('this torch has no list of allowed objects')
    allowed = torch.serialization.get_safe_globals()
    assert getattr not in allowed
    assert all(entry[0] is not getattr for entry in allowed if isinstance(entry, tuple))
