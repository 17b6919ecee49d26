"""A segmentation that is not one of its image is a message; what pycocotools writes is none."""

import re

import numpy as np
import pytest

from icconv_mm.datasets.checks import DatasetError
from icconv_mm.datasets.segmentations import check_segmentations, first_defect, segmentation_defect

mask = pytest.importorskip('pycocotools.mask')
HEIGHT, WIDTH = 60, 80
FULL = mask.encode(np.ones((HEIGHT, WIDTH), np.uint8, order='F'))['counts'].decode()


def rle(counts, size=(HEIGHT, WIDTH)):
    return {'size': list(size), 'counts': counts}


def random_mask(rng, height, width):
    cell = int(rng.integers(1, 20))
    coarse = rng.random((height // cell + 1, width // cell + 1)) < rng.random()
    return np.asfortranarray(np.kron(coarse, np.ones((cell, cell)))[:height, :width].astype(np.uint8))


def test_rle_of_pycocotools():
    """Compressed ones as decoded here have as many pixels as their image, not one more."""
    rng, entries = np.random.default_rng(0), []
    for i in range(300):
        height, width = (int(side) for side in rng.integers(1, 300, 2))
        encoded = mask.encode(random_mask(rng, height, width))
        entries.append((i, {**encoded, 'counts': encoded['counts'].decode()}, height, width))
        wide = {**entries[-1][1], 'size': [height, width + 1]}
        defect = f'the runs have {height * width} pixels, but the image {height * (width + 1)} '
        assert segmentation_defect(wide, height, width + 1).startswith(defect)
    assert first_defect(entries) is None
    wrong = (7, rle(FULL, (HEIGHT, 2 * WIDTH)), HEIGHT, 2 * WIDTH)
    assert first_defect([*entries[:250], wrong, *entries])[0] == 7


@pytest.mark.parametrize(
    'segmentation',
    [
        [[0, 0, 10.5, 0, 10, 10]],
        [[-3, -3, WIDTH + 3, 0, 10, 10]],  # tools round beyond the border
        [[0, 0, 10, 0, 10, 10], [1, 1, 2, 2]],  # COCO's polygons of a line, after a real one: left out everywhere
        rle([HEIGHT * WIDTH]),
        rle([0, HEIGHT * WIDTH]),
        rle(FULL.encode()),
    ],
)
def test_what_libraries_can_read(segmentation):
    assert segmentation_defect(segmentation, HEIGHT, WIDTH) is None


@pytest.mark.parametrize(
    'segmentation, defect',
    [
        (None, 'no segmentation'),
        ([], 'no segmentation'),
        ({}, "RLE without 'size'"),
        ('polygon', "'segmentation' is 'polygon', expected polygons or RLE"),
        (7, "'segmentation' is 7, expected polygons"),
        ([1, 2, 3, 4, 5, 6], 'a polygon is 1, expected numbers'),
        ([[1, 2, 3, 4]], 'the first polygon has 2 points, expected 3 or more'),
        ([[]], 'a polygon has 0 numbers, expected x and y of each point'),
        ([[1, 2, 3, 4, 5]], 'a polygon has 5 numbers, expected x and y of each point'),
        ([[0, 0, 10, 0, 10, 10], [1, 2, 3]], 'a polygon has 3 numbers'),
        ([[{'x': 1, 'y': 2}, {'x': 3, 'y': 4}]], "a polygon is [{'x': 1, 'y': 2}, .*, expected numbers"),
        ([[[1, 2], [3, 4], [5, 6]]], 'a polygon is [[1, 2], [3, 4], [5, 6]], expected numbers'),
        ([[1, 2, 3, 4, 5, True]], 'a polygon is'),
        ([[1, 2, 3, 4, 5, float('nan')]], 'a polygon goes from'),
        ([[1, 2, 3, 4, 5, 1e9]], 'a polygon goes from 1 to 1e+09 in an image of 80 x 60 pixels'),
        ({'counts': FULL}, "RLE without 'size'"),
        (rle(FULL, (WIDTH, HEIGHT)), 'RLE of size [80, 60], but the image has height 60 and width 80'),
        (rle(FULL, (HEIGHT,)), 'RLE of size [60], but'),
        (rle([100, 200]), 'the runs have 300 pixels, but the image 4800 (80 x 60)'),
        (rle([100, 20000]), 'the runs have 20100 pixels, but the image 4800'),
        (rle([-100, 4900]), 'a run of -100 pixels'),
        (rle([1.5, 4798.5]), "'counts' is [1.5, 4798.5], expected numbers of pixels"),
        (rle(None), "'counts' is None, expected numbers of pixels"),
        (rle([]), 'the runs have 0 pixels'),
        (rle(''), "'counts' '' are no compressed RLE"),
        (rle('garbage!'), "'counts' 'garbage!' are no compressed RLE"),
        (rle('\u00e9\ud800'), 'are no compressed RLE'),
        (rle(FULL + 'o'), 'are no compressed RLE'),  # the last number does not end
        (rle('0' + 'P' * 40 + FULL[1:]), 'a run of -1 pixels'),  # a number of more bits than there are
        (rle(FULL[:-1] + 'l4'), 'the runs have'),
        (rle('0O'), 'a run of -1 pixels'),
    ],
)
def test_what_they_cannot(segmentation, defect):
    pattern = re.escape(defect).replace(r'\.\*', '.*')
    with pytest.raises(DatasetError, match=rf'^a\.json: image 3 \(b\.png\), annotation 5: .*{pattern}'):
        check_segmentations(one_annotation(segmentation), 'a.json', required=True)


def one_annotation(segmentation):
    image = {'id': 3, 'file_name': 'b.png', 'height': HEIGHT, 'width': WIDTH}
    return {'images': [image], 'annotations': [{'id': 5, 'image_id': 3, 'segmentation': segmentation}]}


def test_not_every_annotation_needs_one():
    check_segmentations(one_annotation(None), 'a.json')
    check_segmentations(one_annotation([]), 'a.json')
