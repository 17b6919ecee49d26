"""What a program of the user's own imports."""

import pytest
from skips import EXPORTS

from icconv_mm import apis
from icconv_mm.errors import MissingLibraryError


@pytest.mark.parametrize('name', apis.__all__)
def test_every_name_leads_somewhere(name):
    if name == 'export' and not EXPORTS:
        with pytest.raises(MissingLibraryError, match='export needs torch'):
            getattr(apis, name)
        return
    assert getattr(apis, name).__name__ == name


def test_other_names():
    assert not hasattr(apis, 'prepare')
