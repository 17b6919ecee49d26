from pathlib import Path

import pytest

from icconv_mm.apis.coco_results import match_images
from icconv_mm.errors import ArgumentError


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
