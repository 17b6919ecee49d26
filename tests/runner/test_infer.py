import itertools
import threading
from pathlib import Path

import pytest

from icconv_mm.errors import ArgumentError
from icconv_mm.runner.infer import Predictor, _ahead, _unique_names, match_images


def test_pictures_of_equal_names_get_different_ones():
    paths = [Path('x/a.jpg'), Path('x/a_2.jpg'), Path('y/a.jpg'), Path('z/a.jpg')]
    names = _unique_names(paths)
    assert names[paths[0]] == 'a.jpg' and names[paths[1]] == 'a_2.jpg'
    assert len(set(names.values())) == len(paths)


@pytest.mark.parametrize('method', [Predictor.predict, Predictor.try_predict])
def test_the_batch_size_is_named_as_the_argument_that_it_is(method):
    with pytest.raises(ArgumentError, match=r'^batch_size: expected 1 or more, got 0$'):
        next(method(None, ['a.jpg'], batch_size=0))


def _entries(*names):
    return [{'id': 10 + i, 'file_name': name} for i, name in enumerate(names)]


def test_pictures_match_annotations_by_name_or_by_folder():
    images = _entries('a/1.jpg', 'b/1.jpg', '2.jpg')
    paths = [Path('set/b/1.jpg'), Path('set/a/1.jpg'), Path('elsewhere/2.jpg')]
    assert match_images(paths, images, 'x.json') == {paths[0]: 11, paths[1]: 10, paths[2]: 12}


@pytest.mark.parametrize(
    ('names', 'paths', 'message'),
    [
        (['2.jpg'], ['1.jpg'], "^ann_file: x.json: no image '1.jpg'"),
        (['a/1.jpg', 'b/1.jpg'], ['c/1.jpg'], "no image '1.jpg'"),
        (['1.jpg', '1.jpg'], ['c/1.jpg'], "2 images '1.jpg'"),
        (['1.jpg'], ['a/1.jpg', 'b/1.jpg'], 'fits several images: a/1.jpg, b/1.jpg'),
    ],
)
def test_ambiguous_annotations_are_refused(names, paths, message):
    with pytest.raises(ArgumentError, match=message):
        match_images([Path(path) for path in paths], _entries(*names), 'x.json')


def test_threads_work_ahead_and_keep_the_order():
    """The second picture is begun before the first one is asked for, and no more than a few are."""
    begun, both = [], threading.Barrier(2, timeout=20)

    def load(number):
        begun.append(number)
        if number < 2:
            both.wait()  # for the other: one thread alone would never get on
        if number == 30:
            raise KeyError('30')
        return number

    found = _ahead(load, itertools.count(), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2] and len(begun) < 10
    with pytest.raises(KeyError, match='30'):
        list(found)
    begun.clear()
    one = _ahead(begun.append, range(9), 0)
    next(one)
    assert begun == [0]


def test_the_number_of_threads_is_named_as_the_argument_that_it_is():
    with pytest.raises(ArgumentError, match=r'^workers: expected 0 or more, got -1$'):
        next(_ahead(print, [1], -1))
