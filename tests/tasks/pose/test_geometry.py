import cv2
import numpy as np
import pytest

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.geometry import check_scales, image_pyramid, warp_matrix


@pytest.mark.parametrize(
    ('scales', 'message'),
    [
        ([], 'the list of test scales is empty'),
        ([1, 0], 'positive number, got 0'),
        ([1, -0.5], 'positive number, got -0.5'),
        ([1, float('nan')], 'positive number, got nan'),
        ([1, float('inf')], 'positive number, got inf'),
        (['1'], "positive number, got '1'"),
        ([True], 'positive number, got True'),
        ([1, 2, 1.0], 'a test scale occurs twice'),
        (1, 'must be a list of numbers, got 1'),
        ('2,1', "must be a list of numbers, got '2,1'"),
    ],
)
def test_bad_scales(scales, message):
    with pytest.raises(InputError, match=message):
        check_scales(scales)


def test_scales_run_largest_first():
    assert check_scales([0.5, 2, 1]) == (2, 1, 0.5)


@pytest.mark.parametrize('scales', [[1], [2, 1, 0.5], [1, 0.75], [1.3, 1.1, 0.7], [0.6]])
@pytest.mark.parametrize('image_size', [(640, 425), (333, 500), (200, 200), (1, 1), (3, 2)])
def test_levels_fit_the_stride_and_show_one_region(scales, image_size):
    pyramid = image_pyramid(image_size, (192, 192), scales)
    corners = []
    for size in pyramid.sizes:
        assert size[0] % 32 == size[1] % 32 == 0
        matrix = np.vstack([warp_matrix(pyramid, size), [0, 0, 1]])
        inverse = np.linalg.inv(matrix)
        corners.append((inverse @ [[0, size[0]], [0, size[1]], [1, 1]])[:2])
    np.testing.assert_allclose(corners, np.broadcast_to(corners[0], np.shape(corners)), atol=1e-9)
    # The estimator maps predictions back with centre and extent alone.
    low = np.subtract(pyramid.center, np.divide(pyramid.extent, 2))
    np.testing.assert_allclose(corners[0], np.stack([low, low + pyramid.extent], 1), atol=1e-9)


def test_short_side_has_the_input_size():
    pyramid = image_pyramid((300, 200), (192, 192), [2, 1])
    assert pyramid.sizes == ((640, 384), (320, 192)) and pyramid.base_size == (320, 192)


@pytest.mark.parametrize('image_size', [(0, 5), (5, 0)])
def test_empty_image(image_size):
    with pytest.raises(InputError, match='has no content'):
        image_pyramid(image_size, (192, 192))


def test_image_that_would_become_too_long():
    with pytest.raises(InputError, match=r'2 x 900 pixels is too long and thin.*more than 32766'):
        image_pyramid((2, 900), (640, 640), [2, 1, 0.5])


def test_warped_pixels_are_where_the_matrix_says():
    image = np.zeros((100, 150), dtype=np.float32)
    image[70, 30] = 1
    pyramid = image_pyramid((150, 100), (256, 256))
    matrix = warp_matrix(pyramid, pyramid.sizes[0])
    warped = cv2.warpAffine(image, matrix, pyramid.sizes[0])
    y, x = np.unravel_index(warped.argmax(), warped.shape)
    np.testing.assert_allclose([x, y], matrix @ [30, 70, 1], atol=1)
