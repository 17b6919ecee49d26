import numpy as np
import pytest
from pycocotools import mask as coco_mask

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.targets import gaussian_heatmaps, ignored_region, keypoint_indices, valid_mask


@pytest.mark.parametrize('people', [0, 2])
def test_nothing_visible(people):
    keypoints, visible = np.zeros((people, 5, 2)), np.zeros((people, 5))
    assert not gaussian_heatmaps(keypoints, visible, (8, 6), 2).any()
    assert gaussian_heatmaps(keypoints, visible, (8, 6), 2).shape == (5, 6, 8)
    assert not keypoint_indices(keypoints, visible, (8, 6)).any()
    assert keypoint_indices(keypoints, visible, (8, 6)).shape == (people, 5, 2)


SQUARE = [[2, 3, 8, 3, 8, 9, 2, 9]]


def _square():
    region = np.zeros((12, 16), dtype=np.uint8)
    region[3:9, 2:8] = 1
    return region


def _uncompressed():
    flat = _square().flatten(order='F')
    changes = np.flatnonzero(np.diff(flat)) + 1
    return {'size': [12, 16], 'counts': np.diff([0, *changes, flat.size]).tolist()}


@pytest.mark.parametrize(
    'segmentation', [SQUARE, coco_mask.encode(np.asfortranarray(_square())), _uncompressed(), SQUARE + [[1, 1, 5, 5]]],
    ids=['polygon', 'compressed', 'uncompressed', 'with a polygon of two points'],
)  # fmt: skip
def test_every_form_of_segmentation(segmentation):
    np.testing.assert_array_equal(ignored_region([segmentation], (16, 12)), _square())


@pytest.mark.parametrize('segmentations', [[], [None], [[]], [[[1, 1]]]])
def test_nothing_to_ignore(segmentations):
    assert not ignored_region(segmentations, (16, 12)).any()


def test_regions_are_united():
    both = ignored_region([SQUARE, [[10, 0, 12, 0, 12, 12, 10, 12]]], (16, 12))
    assert both.sum() == 36 + 24


def test_mask_follows_the_image():
    identity = np.eye(2, 3)
    valid = valid_mask([SQUARE], (16, 12), identity, (16, 12))
    np.testing.assert_array_equal(valid, _square() == 0)
    shifted = valid_mask([SQUARE], (16, 12), np.array([[1, 0, 4], [0, 1, 0]]), (16, 12))
    np.testing.assert_array_equal(shifted[:, 4:], valid[:, :-4])
    assert not shifted[:, :4].any()  # outside the image nothing is known


@pytest.mark.parametrize('direction', ['horizontal', 'vertical', 'diagonal'])
def test_mask_follows_the_flipped_image(direction):
    corner = [[[0, 0, 5, 0, 5, 3, 0, 3]]]
    args = corner, (16, 12), np.eye(2, 3), (16, 12)
    axes = {'horizontal': 1, 'vertical': 0, 'diagonal': (0, 1)}[direction]
    expected = np.flip(valid_mask(*args), axes)
    np.testing.assert_array_equal(valid_mask(*args, flip=direction), expected)
    assert not np.array_equal(expected, valid_mask(*args))


def test_what_cannot_be_masked_is_named():
    with pytest.raises(InputError, match=r'flip direction must be one of horizontal, .* got True'):
        valid_mask([], (16, 12), np.eye(2, 3), (16, 12), flip=True)
    with pytest.raises(InputError, match='an image of 32767 x 1 pixels is too large'):
        valid_mask([], (32767, 1), np.eye(2, 3), (16, 12))
