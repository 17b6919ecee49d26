import pytest
import torch

from icconv_mm.tasks.pose import refinement
from icconv_mm.tasks.pose.refinement import best_pixels, fill_missing, quarter_shift


def search_everywhere(heatmaps, tags, keypoint, mean_tags):
    found = []
    for k, mean in zip(keypoint, mean_tags):
        value = heatmaps[k] - (tags[k] - mean).square().sum(-1).sqrt().round()
        index = int((value == value.max()).flatten().nonzero()[0])  # the first in a tie
        found.append([index % heatmaps.shape[2], index // heatmaps.shape[2]])
    return torch.tensor(found)


@pytest.fixture(params=['blocks of neighbours', 'blocks by tag'], autouse=True)
def few_or_a_crowd(request, monkeypatch):
    monkeypatch.setattr(refinement, '_CROWD', 1000 if 'neighbours' in request.param else 0)


@pytest.mark.parametrize('size', [(64, 48), (37, 50), (16, 16), (5, 3)])
@pytest.mark.parametrize('tag_dim', [1, 2])
@pytest.mark.parametrize('spread', [0.1, 3.0])
def test_branch_and_bound_finds_what_full_search_finds(size, tag_dim, spread):
    heatmaps = torch.randn(3, *size) * 0.3
    tags = torch.randn(3, *size, tag_dim) * spread
    keypoint = torch.randint(0, 3, (40,))
    mean_tags = torch.randn(40, tag_dim) * 4  # some lie far from every tag of the map
    expected = search_everywhere(heatmaps, tags, keypoint, mean_tags)
    assert torch.equal(best_pixels(heatmaps, tags, keypoint, mean_tags), expected)


def test_ties_give_the_first_pixel():
    keypoint, mean_tags = torch.tensor([0, 1]), torch.zeros(2, 1)
    flat = best_pixels(torch.zeros(2, 40, 40), torch.zeros(2, 40, 40, 1), keypoint, mean_tags)
    assert flat.tolist() == [[0, 0], [0, 0]]
    heatmaps = (torch.rand(2, 40, 56) > 0.97).float()
    tags = torch.randint(0, 3, (2, 40, 56, 1)).float()
    expected = search_everywhere(heatmaps, tags, keypoint, mean_tags)
    assert torch.equal(best_pixels(heatmaps, tags, keypoint, mean_tags), expected)


def test_search_in_pieces_gives_the_same(monkeypatch):
    heatmaps, tags = torch.randn(2, 64, 64), torch.randn(2, 64, 64, 1)
    keypoint, mean_tags = torch.randint(0, 2, (30,)), torch.randn(30, 1)
    expected = best_pixels(heatmaps, tags, keypoint, mean_tags)
    monkeypatch.setattr(refinement, '_CHUNK', 512)
    assert torch.equal(best_pixels(heatmaps, tags, keypoint, mean_tags), expected)


def test_quarter_shift_at_borders_and_ties():
    heatmap = torch.zeros(1, 4, 5)
    heatmap[0, 0, 1] = heatmap[0, 3, 3] = 1.0
    # (x, y): right neighbour larger; tie in both; the corner, whose own value stands for the missing neighbour
    pixels = torch.tensor([[[0, 0]], [[2, 1]], [[4, 3]]])
    assert quarter_shift(heatmap, pixels).tolist() == [[[0.75, 0.25]], [[2.25, 1.25]], [[4.25, 3.25]]]


def test_only_missing_keypoints_with_a_positive_heatmap_are_filled():
    heatmaps = torch.full((3, 20, 20), -0.5)
    tags = torch.full((3, 20, 20, 1), 7.0)
    heatmaps[0, 4, 5] = 0.9
    heatmaps[1, 10, 12] = 0.3
    keypoints = torch.zeros(1, 3, 3)
    keypoints[0, 0] = torch.tensor([5.0, 4.0, 0.9])
    pixels = keypoints[..., :2].long()
    filled = fill_missing(heatmaps, tags, keypoints, pixels, keypoints[..., 2] > 0)
    assert torch.equal(filled[0, 0], keypoints[0, 0])
    torch.testing.assert_close(filled[0, 1], torch.tensor([12.25, 10.25, 0.3]))
    assert torch.equal(filled[0, 2], torch.zeros(3))


def test_no_block_but_the_probed_ones_can_hold_the_best():
    heatmaps = torch.zeros(1, 96, 96)
    heatmaps[0, 40, 70] = 1.0
    # All 36 blocks are bounded by 0 but the one with the peak; 8 are probed and none of the others reaches 1.
    found = best_pixels(heatmaps, torch.zeros(1, 96, 96, 1), torch.tensor([0]), torch.zeros(1, 1))
    assert found.tolist() == [[70, 40]]
