import numpy as np
import pytest
import torch

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.multiscale import MapAggregator, check_scales, image_pyramid, tag_scale, unflip
from icconv_mm_runtime.warping import warp_matrix


@pytest.mark.parametrize(
    ('scales', 'message'),
    [
        ([], 'the list of test scales is empty'),
        ([1, -0.5], 'positive number, got -0.5'),
        ([1, float('nan')], 'positive number, got nan'),
        ([1, 2, 1.0], 'a test scale occurs twice'),
        (1, 'must be a list of numbers, got 1'),
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
        matrix = np.vstack([warp_matrix(size, pyramid.center, pyramid.extent), [0, 0, 1]])
        inverse = np.linalg.inv(matrix)
        corners.append((inverse @ [[0, size[0]], [0, size[1]], [1, 1]])[:2])
    np.testing.assert_allclose(corners, np.broadcast_to(corners[0], np.shape(corners)), atol=1e-9)
    # The estimator maps predictions back with centre and extent alone.
    low = np.subtract(pyramid.center, np.divide(pyramid.extent, 2))
    np.testing.assert_allclose(corners[0], np.stack([low, low + pyramid.extent], 1), atol=1e-9)


@pytest.mark.parametrize('image_size', [(0, 5), (5, 0)])
def test_empty_image(image_size):
    with pytest.raises(InputError, match='has no content'):
        image_pyramid(image_size, (192, 192))


def test_image_that_would_become_too_long():
    with pytest.raises(InputError, match=r'2 x 900 pixels is too long and thin.*more than 32766'):
        image_pyramid((2, 900), (640, 640), [2, 1, 0.5])


SWAP = [0, 2, 1]


def test_unflip_undoes_flipping():
    maps = torch.rand(2, 3, 4, 6)
    assert torch.equal(unflip(maps.flip(-1)[:, SWAP], SWAP), maps)
    assert torch.equal(unflip(maps.flip(-1), None), maps)


def test_a_perfect_network_sees_the_same_in_a_flip():
    maps, tags = torch.rand(1, 3, 8, 12), torch.rand(1, 3, 8, 12)
    aggregator = MapAggregator()
    aggregator.add([maps], [tags], [maps.flip(-1)[:, SWAP]], [tags.flip(-1)[:, SWAP]], SWAP)
    heatmaps, merged = aggregator.result()
    torch.testing.assert_close(heatmaps, maps)
    torch.testing.assert_close(merged, torch.stack([tags, tags], -1))


def test_one_tag_map_for_all_keypoints():
    maps, tags = torch.rand(1, 3, 8, 12), torch.rand(1, 1, 8, 12)
    aggregator = MapAggregator()
    aggregator.add([maps], [tags], [maps.flip(-1)], [tags.flip(-1)], SWAP)
    merged = aggregator.result()[1]
    torch.testing.assert_close(merged, tags.expand(1, 3, 8, 12).unsqueeze(-1).expand(1, 3, 8, 12, 2))


def test_errors():
    with pytest.raises(RuntimeError, match='no scale was added'):
        MapAggregator().result()
    aggregator = MapAggregator()
    aggregator.add([torch.rand(1, 3, 8, 12)], None)
    with pytest.raises(RuntimeError, match='no scale with tags was added'):
        aggregator.result()
    with pytest.raises(InputError, match='needs flip_indices'):
        aggregator.add([torch.rand(1, 3, 8, 12)], None, [torch.rand(1, 3, 8, 12)])


@pytest.mark.parametrize(
    ('scales', 'expected'), [([2, 1, 0.5], 1), ([2], 2), ([1.5, 0.5], 1.5), ([3, 0.5], 0.5), ([1], 1)]
)
def test_tags_come_from_the_scale_nearest_to_1(scales, expected):
    assert tag_scale(scales) == expected
