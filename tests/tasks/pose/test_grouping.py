import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose import COCO_KEYPOINT_ORDER, group_keypoints
from icconv_mm.tasks.pose.targets import gaussian_heatmaps
from icconv_mm_runtime.grouping import _Blocks, _fill, _peaks, _shifted


def scene(people, count=17, size=(64, 48), seed=0, visible=0.8, tag_dim=1, noise=0.01):
    """Heatmaps [K, H, W] and tags [K, H, W, L] of people at random places, whose tags are 2 apart."""
    rng = np.random.RandomState(seed)
    width, height = size
    keypoints = rng.uniform((2, 2), (width - 3, height - 3), (people, count, 2))
    shown = rng.rand(people, count) < visible
    heatmaps = gaussian_heatmaps(keypoints, shown, size, 1.5) * rng.uniform(0.6, 1, (count, 1, 1))
    heatmaps = heatmaps + noise * rng.randn(*heatmaps.shape)
    tags = 0.3 * rng.randn(count, height, width, tag_dim)
    for person in range(people):
        for keypoint in range(count):
            x, y = keypoints[person, keypoint].astype(int)
            near = (keypoint, slice(max(0, y - 3), y + 4), slice(max(0, x - 3), x + 4))
            tags[near] = 2 * person + 0.05 * rng.randn(tag_dim)
    return torch.from_numpy(heatmaps).float(), torch.from_numpy(tags).float()


def test_without_adjust_and_refine_pixels_are_whole_and_gaps_stay():
    heatmaps, tags = scene(3, seed=5, visible=0.5)
    keypoints, scores = group_keypoints(heatmaps, tags, adjust=False, refine=False)
    assert (keypoints[..., :2] == keypoints[..., :2].round()).all()
    assert (keypoints[..., 2] == 0).any()
    filled, filled_scores = group_keypoints(heatmaps, tags, adjust=False)
    assert (filled[..., 2] > 0).sum() > (keypoints[..., 2] > 0).sum()
    torch.testing.assert_close(filled_scores, scores)  # scores are those before refinement


def test_memory_layout_of_tags_does_not_matter():
    heatmaps, tags = scene(3, tag_dim=2)
    slowest_last = tags.permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    for got, expected in zip(group_keypoints(heatmaps, slowest_last), group_keypoints(heatmaps, tags)):
        assert torch.equal(got, expected)
    shared = tags[:1].expand_as(tags)
    assert torch.equal(group_keypoints(heatmaps, shared)[0], group_keypoints(heatmaps, shared.contiguous())[0])


@pytest.mark.parametrize('kernel', [1, 3, 5, 7])
@pytest.mark.parametrize('shape', [(2, 23, 31), (1, 1, 9), (1, 9, 1), (3, 4, 4)])
def test_peaks_equal_max_pooling(kernel, shape):
    # Few distinct values, so that there are plateaus, at the borders too.
    heatmaps = torch.randint(0, 6, shape).float() / 5
    tags = heatmaps + 1
    pooled = max_pool2d(heatmaps[None], kernel, stride=1, padding=kernel // 2)[0]
    expected = ((heatmaps == pooled) & (heatmaps > 0.3)).nonzero()
    assert len(expected) > 0
    for keypoint, heatmap in enumerate(heatmaps):
        pixels, scores, peak_tags = _peaks(heatmap.numpy(), tags[keypoint, None].numpy(), 10**6, kernel, 0.3)
        positions = expected[expected[:, 0] == keypoint, 1:].flip(1).tolist()
        assert sorted(pixels.tolist()) == sorted(positions) and (np.diff(scores) <= 0).all()
        np.testing.assert_allclose(peak_tags[:, 0], scores + 1, rtol=1e-6)


@pytest.mark.parametrize('value', [0.0, -1.0, 0.1])
def test_nobody(value):
    keypoints, scores = group_keypoints(torch.full((17, 8, 8), value), torch.zeros(17, 8, 8, 1))
    assert keypoints.shape == (0, 17, 3) and scores.shape == (0,)


def test_half_precision_maps():
    heatmaps, tags = scene(2, noise=0)
    keypoints, scores = group_keypoints(heatmaps.bfloat16(), tags.bfloat16())
    assert keypoints.dtype == scores.dtype == torch.float32
    assert len(keypoints) >= 2


def test_more_people_than_max_num_people_are_returned_unless_ignored():
    heatmaps = torch.zeros(2, 40, 40)
    tags = torch.zeros(2, 40, 40, 1)
    for person in range(6):
        heatmaps[person % 2, 5 * person + 3, 5] = 0.9  # each person shows one keypoint only
        tags[:, 5 * person + 3, 5] = 10.0 * person
    assert len(group_keypoints(heatmaps, tags, max_num_people=3)[0]) == 6
    assert len(group_keypoints(heatmaps, tags, max_num_people=3, ignore_too_much=True)[0]) == 3


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), float('-inf')])
def test_maps_that_are_not_finite_are_refused(bad):
    heatmaps, tags = scene(2, noise=0)
    broken = heatmaps.clone()
    broken[3, 0, 0] = bad
    with pytest.raises(InputError, match=r'heatmap of keypoint 3 is not finite .* at 1 of 3072 values'):
        group_keypoints(broken, tags)
    broken = tags.clone()
    broken[5, -1, -1] = bad  # far from every peak
    with pytest.raises(InputError, match=r'tag map of keypoint 5 is not finite .* at 1 of 3072 values'):
        group_keypoints(heatmaps, broken)


def test_large_finite_tags_are_taken():
    """Their sum overflows, they do not."""
    heatmaps, tags = scene(2, noise=0)
    expected, _ = group_keypoints(heatmaps, tags + 1e3)
    tags = tags + 1e3
    tags[:, 0, :2] = 3e38
    assert torch.isinf(tags.sum())
    assert torch.equal(group_keypoints(heatmaps, tags)[0], expected)


def test_keypoint_orders_name_the_torso_first(mmpose):
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    def names(dataset, order):
        meta = parse_pose_metainfo(dict(from_file=f'configs/_base_/datasets/{dataset}.py'))
        return [meta['keypoint_id2name'][keypoint] for keypoint in order]

    head = ['nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear']
    torso = ['left_shoulder', 'right_shoulder', 'left_hip', 'right_hip']
    limbs = [f'{side}_{keypoint}' for keypoint in ('elbow', 'wrist', 'knee', 'ankle') for side in ('left', 'right')]
    assert names('coco', COCO_KEYPOINT_ORDER) == head + torso + limbs
    # mmpose 0.x grouped any other skeleton in the order of the dataset; in CrowdPose that starts with the shoulders.
    assert names('crowdpose', range(14)) == [
        f'{side}_{keypoint}'
        for keypoint in ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
        for side in ('left', 'right')
    ] + ['top_head', 'neck']


@pytest.mark.parametrize(
    ('heatmaps', 'tags', 'options', 'message'),
    [
        ((17, 8, 8), (17, 8, 8), {}, r'\[17, 8, 8\] and \[17, 8, 8\]'),
        ((17, 8, 8), (17, 8, 9, 1), {}, r'\[17, 8, 9, 1\]'),
        ((17, 8, 8), (17, 8, 8, 1), {'nms_kernel': 4}, 'nms_kernel must be a positive odd number, got 4'),
        ((17, 8, 8), (17, 8, 8, 1), {'max_num_people': 0}, 'max_num_people must be at least 1, got 0'),
        (
            (3, 8, 8),
            (3, 8, 8, 1),
            {'keypoint_order': [0, 1, 1]},
            'keypoint_order must name each of the 3',
        ),
    ],
)
def test_bad_arguments(heatmaps, tags, options, message):
    with pytest.raises(InputError if options else ValueError, match=message):
        group_keypoints(torch.zeros(heatmaps), torch.zeros(tags), **options)


def test_any_other_number_of_keypoints_is_grouped_in_its_order():
    heatmaps, tags = scene(4, count=14, visible=0.5)
    for got, expected in zip(
        group_keypoints(heatmaps, tags, keypoint_order=range(14)), group_keypoints(heatmaps, tags)
    ):
        assert torch.equal(got, expected)


def search_everywhere(heatmap, tags, mean):
    value = heatmap - np.round(np.sqrt(((tags - mean[:, None, None]) ** 2).sum(0)))
    return divmod(int(value.argmax()), heatmap.shape[1])[::-1]  # the first in a tie


@pytest.mark.parametrize('size', [(64, 48), (37, 50), (16, 16), (5, 3)])
@pytest.mark.parametrize('tag_dim', [1, 2])
@pytest.mark.parametrize('spread', [0.1, 3.0])
def test_search_by_blocks_finds_what_full_search_finds(size, tag_dim, spread):
    random = np.random.default_rng(0)
    heatmap = random.normal(0, 0.3, size).astype(np.float32)
    tags = random.normal(0, spread, (tag_dim, *size)).astype(np.float32)
    blocks = _Blocks.of(heatmap, tags)
    for mean in random.normal(0, 4, (40, tag_dim)).astype(np.float32):  # some lie far from every tag of the map
        assert blocks.best_pixel(mean) == search_everywhere(heatmap, tags, mean)


def test_ties_give_the_first_pixel():
    mean, random = np.zeros(1, np.float32), np.random.default_rng(0)
    assert _Blocks.of(np.zeros((40, 40)), np.zeros((1, 40, 40))).best_pixel(mean) == (0, 0)
    for _ in range(20):
        heatmap = (random.random((40, 56)) > 0.97).astype(np.float32)
        tags = random.integers(0, 3, (1, 40, 56)).astype(np.float32)
        assert _Blocks.of(heatmap, tags).best_pixel(mean) == search_everywhere(heatmap, tags, mean)


def test_quarter_shift_at_borders_and_ties():
    heatmap = np.zeros((1, 4, 5))
    heatmap[0, 0, 1] = heatmap[0, 3, 3] = 1.0
    # (x, y): right neighbour larger; tie in both; the corner, whose own value stands for the missing neighbour
    pixels = np.array([[[0, 0]], [[2, 1]], [[4, 3]]])
    assert _shifted(heatmap, pixels).tolist() == [[[0.75, 0.25]], [[2.25, 1.25]], [[4.25, 3.25]]]


def test_only_missing_keypoints_with_a_positive_heatmap_are_filled():
    heatmaps, tags = np.full((3, 20, 20), -0.5), np.full((1, 3, 20, 20), 7.0)
    heatmaps[0, 4, 5] = 0.9
    heatmaps[1, 10, 12] = 0.3
    people = np.zeros((1, 3, 3), np.float32)
    people[0, 0] = keypoint = np.array([5.0, 4.0, 0.9], np.float32)
    _fill(heatmaps, tags, people, people[..., :2].astype(int), people[..., 2] > 0)
    np.testing.assert_array_equal(people[0, 0], keypoint)
    np.testing.assert_allclose(people[0, 1], [12.25, 10.25, 0.3], rtol=1e-6)
    np.testing.assert_array_equal(people[0, 2], 0)
