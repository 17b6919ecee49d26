import pytest
import torch
from scenes import scene
from torch.nn.functional import max_pool2d

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose import COCO_KEYPOINT_ORDER, group_keypoints
from icconv_mm.tasks.pose.grouping import _keypoint_order, find_peaks


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
    pooled = max_pool2d(heatmaps[None], kernel, stride=1, padding=kernel // 2)[0]
    expected = ((heatmaps == pooled) & (heatmaps > 0.3)).nonzero()
    found = torch.stack(find_peaks(heatmaps, kernel, 0.3), 1)
    assert len(expected) > 0
    assert torch.equal(found, expected)


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
    order = _keypoint_order(14, None)
    assert names('crowdpose', order) == [
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
