from pathlib import Path

import pytest

from icconv_mm.apis.inference import Predictor, _unique_names
from icconv_mm.errors import ArgumentError


def test_pictures_of_equal_names_get_different_ones():
    paths = [Path('x/a.jpg'), Path('x/a_2.jpg'), Path('y/a.jpg'), Path('z/a.jpg')]
    names = _unique_names(paths)
    assert names[paths[0]] == 'a.jpg' and names[paths[1]] == 'a_2.jpg'
    assert len(set(names.values())) == len(paths)


@pytest.mark.parametrize('method', [Predictor.predict, Predictor.try_predict])
def test_the_batch_size_is_named_as_the_argument_that_it_is(method):
    with pytest.raises(ArgumentError, match=r'^batch_size: expected 1 or more, got 0$'):
        next(method(None, ['a.jpg'], batch_size=0))
