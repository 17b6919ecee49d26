from pathlib import Path

from icconv_mm.apis.inference import _unique_names


def test_pictures_of_equal_names_get_different_ones():
    paths = [Path('x/a.jpg'), Path('x/a_2.jpg'), Path('y/a.jpg'), Path('z/a.jpg')]
    names = _unique_names(paths)
    assert names[paths[0]] == 'a.jpg' and names[paths[1]] == 'a_2.jpg'
    assert len(set(names.values())) == len(paths)
