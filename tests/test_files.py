"""Files that appear whole or not at all."""

import pytest

from icconv_mm.files import whole_file


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / 'new' / 'a'
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b'half')
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    with whole_file(path) as file:
        file.write(b'whole')
    assert path.read_bytes() == b'whole'


def test_names_until_then_cannot_be_guessed(tmp_path):
    """A link of that name would lead elsewhere."""
    names = set()
    for _ in range(3):
        with whole_file(tmp_path / 'a'):
            names |= {path.name for path in tmp_path.iterdir() if path.name != 'a'}
    assert len(names) == 3
