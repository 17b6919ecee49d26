"""Warping has the pixels of OpenCV 4 under every release of OpenCV. Needs numpy and OpenCV alone."""

import hashlib
import math

import cv2
import numpy as np
import pytest

from icconv_mm_runtime.images import Sample, preprocess
from icconv_mm_runtime.warping import warp, warp_matrix

PYRAMID = {'op': 'pyramid', 'input_size': [96, 96], 'scales': [0.5, 1, 2], 'size_divisor': 32, 'stride': 32}
FIT = {'op': 'fit', 'input_size': [96, 64], 'value': [114, 7, 250]}
COLOR = (3, 114, 250)


def random_calls(count, side):
    """Images, matrices and sizes: any scales and shifts, and those of both steps."""
    rng = np.random.default_rng(0)
    for number in range(count):
        (width, height), size = rng.integers(1, side, 2), rng.integers(1, side, 2).tolist()
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        if number % 2:
            extent = (width, width * size[1] / size[0])
            center = (float(round(width / 2)), float(round(height / 2)))
            yield image, warp_matrix(size, center, extent), size
        else:
            scales, shifts = rng.uniform(0.05, 5, 2), rng.uniform(-side / 2, side / 2, 2)
            yield image, np.column_stack([np.diag(scales), shifts]), size


def defined(image, matrix, size):
    """Pixel by pixel: four neighbours of a position in steps of 1/32 pixel, weights in whole numbers."""
    result = np.zeros((size[1], size[0], 3), int)
    determinant = 1 / (matrix[0, 0] * matrix[1, 1])
    inverse = matrix[1, 1] * determinant, matrix[0, 0] * determinant
    starts = [-factor * shift for factor, shift in zip(inverse, matrix[:, 2])]
    for y in range(size[1]):
        line = round((inverse[1] * y + starts[1]) * 1024) + 16 >> 5
        for x in range(size[0]):
            column = round(inverse[0] * x * 1024) + round(starts[0] * 1024) + 16 >> 5
            total = np.full(3, 512)
            for dy, dx in np.ndindex(2, 2):
                place = line // 32 + dy, column // 32 + dx
                inside = 0 <= place[0] < image.shape[0] and 0 <= place[1] < image.shape[1]
                weight = abs(32 * (1 - dy) - line % 32) * abs(32 * (1 - dx) - column % 32)
                total += weight * (image[place].astype(int) if inside else np.array(COLOR))
            result[y, x] = total >> 10
    return result


def test_pixels_are_those_of_the_definition():
    for image, matrix, size in random_calls(30, 24):
        np.testing.assert_array_equal(warp(image, matrix, size, COLOR), defined(image, matrix, size))


@pytest.mark.skipif(not cv2.__version__.startswith('4.'), reason=f'this OpenCV is {cv2.__version__}')
def test_pixels_are_those_of_opencv_4():
    for image, matrix, size in random_calls(200, 300):
        expected = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderValue=COLOR)
        np.testing.assert_array_equal(warp(image, matrix, size, COLOR), expected)


def test_other_releases_of_opencv_are_within_a_64th_of_a_pixel():
    slope = 8
    image = np.repeat((slope * np.arange(30, dtype=np.uint8)[:, None] + np.zeros(30, np.uint8))[..., None], 3, 2)
    matrix = warp_matrix((77, 91), (14.3, 14.9), (25, 24))
    warped, expected = warp(image, matrix, (77, 91)), cv2.warpAffine(image, matrix, (77, 91))
    difference = np.abs(warped.astype(int) - expected)[2:-2, 2:-2]
    assert difference.max() <= math.ceil(slope * (1 / 64 + 1 / 1024))


@pytest.mark.parametrize(
    ('step', 'digest'),
    [
        (PYRAMID, '7377638f90527624'),
        (FIT, 'a349a024427a6904'),
    ],
    ids=['pyramid', 'fit'],
)
def test_inputs_are_the_same_under_every_release(step, digest):
    y, x, channel = np.ogrid[:131, :90, :3]
    image = ((37 * x + 11 * y + x * y + 29 * channel) % 256).astype(np.uint8)
    levels = preprocess(Sample('', image), [step]).levels
    assert hashlib.sha256(b''.join(level.tobytes() for level in levels)).hexdigest()[:16] == digest


def test_parts_of_an_image_are_warped_as_their_copies():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    part = image[5:30, 7:44, ::-1]
    matrix = warp_matrix((33, 21), (20, 10), (30, 19))
    np.testing.assert_array_equal(warp(part, matrix, (33, 21)), warp(part.copy(), matrix, (33, 21)))
