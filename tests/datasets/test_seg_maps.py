"""A segmentation map that its classes cannot have is a message."""

import re

import numpy as np
import pytest
from PIL import Image

from icconv_mm.datasets.seg_maps import labels_in, learned, nothing_to_learn, read_seg_map, seg_map_defect, suffixes_in
from icconv_mm.errors import InputError

SQUARES = np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((4, 6), np.uint8))


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
def test_a_good_map(tmp_path, dtype):
    path = tmp_path / 'a.png'
    Image.fromarray(SQUARES.astype(dtype)).save(path)
    labels = read_seg_map(path)
    assert labels_in(labels) == [0, 1, 2, 255]
    assert seg_map_defect(labels, 3, shape=(8, 12)) is None


def test_indices_of_a_palette_and_single_bits(tmp_path):
    image = Image.fromarray(SQUARES, mode='P')
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / 'a.png')
    assert labels_in(read_seg_map(tmp_path / 'a.png')) == [0, 1, 2, 255]
    Image.fromarray(SQUARES == 1).save(tmp_path / 'b.png')
    assert labels_in(read_seg_map(tmp_path / 'b.png')) == [0, 1]


@pytest.mark.parametrize(
    'labels, options, defect',
    [
        (SQUARES, dict(num_classes=2), 'label 2, but the 2 classes have labels from 0 to 1, and 255 is ignored'),
        (SQUARES, dict(num_classes=3, ignored=()), 'label 255, but the 3 classes have labels from 0 to 2'),
        (
            SQUARES,
            dict(num_classes=2, reduced=True),
            'label 3, but the 2 classes have labels from 1 to 2, and 0 or 255',
        ),
        (SQUARES.astype(np.uint16) + 256, dict(num_classes=3), 'label 256, 257, 258, 511, but the 3 classes'),
        (SQUARES.astype(np.int32) - 1, dict(num_classes=3), 'label -1, 254, but the 3 classes'),
        (np.dstack([SQUARES] * 3), dict(num_classes=3), '3 channels, expected one'),
        (SQUARES / 255, dict(num_classes=3), 'pixels are float64, expected integer labels'),
        (SQUARES, dict(num_classes=3, shape=(12, 8)), 'the segmentation map has 12 x 8 pixels, but its image 8 x 12'),
    ],
)
def test_a_wrong_map(labels, options, defect):
    assert seg_map_defect(labels, **options).startswith(defect)


def test_no_map_to_read(tmp_path):
    (tmp_path / 'a.png').write_bytes(b'no image')
    with pytest.raises(InputError, match=re.escape(f'{tmp_path}/a.png: no segmentation map')):
        read_seg_map(tmp_path / 'a.png')


def test_labels_as_training_sees_them():
    assert learned({0, 1, 2, 255}, reduced=True, label_map=None) == {255, 0, 1}
    assert learned({0, 1, 2}, reduced=False, label_map={0: 255, 1: 0, 2: 1}) == {255, 0, 1}


def test_nothing_to_learn():
    assert nothing_to_learn({0, 1}, 2) is None
    assert nothing_to_learn({0, 255}, 2).startswith(
        'only label 0 of the 2 classes occurs in any segmentation map beside 255'
    )
    assert nothing_to_learn({255}, 2).startswith('none of the 2 classes')
    assert nothing_to_learn({0}, 1).startswith('only label 0 of the 1 classes')


def test_suffixes(tmp_path):
    assert suffixes_in(tmp_path) == 'no files'
    for name in ('a.PNG', 'b.PNG', 'c.jpg'):
        (tmp_path / name).touch()
    assert suffixes_in(tmp_path) == "'.PNG' (2 files), '.jpg' (1 files)"
