import pytest
import torch
from torch.nn.functional import interpolate

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.aggregation import MapAggregator, tag_scale, unflip

SWAP = [0, 2, 1]


def test_unflip_undoes_mirroring():
    maps = torch.rand(2, 3, 4, 6)
    assert torch.equal(unflip(maps.flip(-1)[:, SWAP], SWAP), maps)
    assert torch.equal(unflip(maps.flip(-1), None), maps)


def test_average_over_scales_and_tags_of_one():
    maps = {scale: torch.rand(2, 3, int(8 * scale), int(12 * scale)) for scale in (2, 1, 0.5)}
    tags = {scale: torch.rand(2, 3, int(8 * scale), int(12 * scale)) for scale in (2, 1, 0.5)}
    aggregator = MapAggregator(base_size=(48, 32))
    for scale in (2, 1, 0.5):
        aggregator.add([maps[scale]], [tags[scale]] if scale == 1 else None)
    heatmaps, merged = aggregator.result()

    def up(x):
        return interpolate(x, size=(32, 48), mode='bilinear')

    torch.testing.assert_close(heatmaps, (up(maps[2]) + up(maps[1]) + up(maps[0.5])) / 3)
    torch.testing.assert_close(merged, up(tags[1]).unsqueeze(-1))


def test_a_perfect_network_sees_the_same_in_the_mirror():
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
