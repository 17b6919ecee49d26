"""What a program of the user's own imports."""

import pytest

from icconv_mm import apis


@pytest.mark.parametrize('name', apis.__all__)
def test_every_name_leads_somewhere(name):
    assert getattr(apis, name).__name__ == name


def test_other_names():
    assert not hasattr(apis, 'prepare')
