"""Associative embedding against tensors computed with mmpose 0.29.

Not checked: UDP variants (another coordinate convention, which the package does not offer). In
``ae_parse_crowd36_ties`` 0.29 itself depends on the version of its solver; the result with munkres 3.0 is ours.
"""

import numpy as np
import pytest
import torch

from icconv_mm.tasks.pose import losses, multiscale, targets
from icconv_mm.tasks.pose.grouping import group_keypoints
from icconv_mm_runtime.grouping import _peaks
from icconv_mm_runtime.warping import warp, warp_matrix

AGGREGATION = ('ae_agg_higher_ms', 'ae_agg_higher_ss', 'ae_agg_hrnet_ss')
PARSING = ('ambiguous_tags', 'crowd36', 'eight_overlap', 'nobody', 'one', 'tagshared', 'three')


@pytest.fixture
def case(reference):

    def load(name):
        stored = reference('pose_ae', name)
        return stored.meta, stored

    return load


def assert_close(data, name, values, **tolerance):
    """Of the values that the reference has."""
    got, expected = data.pair(name, values)
    np.testing.assert_allclose(got, expected, err_msg=name, **tolerance)


def _stages(data, prefix, num_joints):
    outputs = [torch.from_numpy(data[f'{prefix}/stage{i}']).double() for i in (0, 1) if f'{prefix}/stage{i}' in data]
    return [o[:, :num_joints] for o in outputs], [o[:, num_joints:] for o in outputs if o.shape[1] > num_joints]


@pytest.mark.parametrize('name', AGGREGATION)
def test_aggregation(case, name):
    meta, data = case(name)
    args = meta['args']
    scales = multiscale.check_scales(args['test_scale_factor'])
    for variant in meta['variants']:
        aggregator = multiscale.MapAggregator(
            tuple(args['base_size_wh']) if variant['project2image'] else None, variant['align_corners']
        )
        for scale in scales:
            heatmaps, tags = _stages(data, f'in/s{scale:g}/orig', args['num_joints'])
            flipped = (None, None)
            if variant['flip_test']:
                flipped = _stages(data, f'in/s{scale:g}/flip', args['num_joints'])
            used = scale == multiscale.tag_scale(scales)
            aggregator.add(heatmaps, tags if used else None, *flipped, args['flip_index'])
        heatmaps, tags = aggregator.result()
        assert_close(data, f'{variant["prefix"]}/heatmaps', heatmaps, rtol=0, atol=1e-5)
        assert_close(data, f'{variant["prefix"]}/tags', tags, rtol=0, atol=1e-5)


@pytest.mark.parametrize('name', PARSING)
def test_people(case, name):
    meta, data = case(f'ae_parse_{name}')
    heatmaps = torch.from_numpy(data['heatmaps'])[0]
    tags = torch.from_numpy(data['tags'])[0].expand(heatmaps.shape[0], -1, -1, -1)
    checked = 0
    for variant in meta['variants']:
        cfg, prefix = variant['cfg'], variant['prefix']
        if cfg['use_udp'] or not cfg['use_detection_val']:  # neither is offered
            continue
        keypoints, scores = group_keypoints(
            heatmaps,
            tags,
            max_num_people=cfg['max_num_people'],
            nms_kernel=cfg['nms_kernel'],
            detection_threshold=cfg['detection_threshold'],
            tag_threshold=cfg['tag_threshold'],
            ignore_too_much=cfg['ignore_too_much'],
            adjust=variant['adjust'],
            refine=variant['refine'],
        )
        assert len(keypoints) == len(scores) == variant['num_people'], prefix
        checked += 1
        if variant['num_people'] == 0:
            continue
        np.testing.assert_allclose(keypoints[..., :2], data[f'{prefix}/keypoints'][..., :2], rtol=0, atol=1e-3)
        np.testing.assert_allclose(keypoints[..., 2], data[f'{prefix}/keypoints'][..., 2], rtol=0, atol=1e-5)
        expected = data[f'{prefix}/scores']
        expected = expected.mean(1) if cfg['score_per_joint'] else expected
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5)
        image = _in_the_image(variant['image_preds'], keypoints, scores)
        np.testing.assert_allclose(image, data[f'{prefix}/image_preds'][..., :2], rtol=0, atol=1e-3)
    assert checked


def _in_the_image(args, keypoints, scores):
    """What the estimator makes of decoded keypoints, given the place of the maps in the image."""
    pytest.importorskip('mmpose')
    from mmengine.structures import InstanceData
    from mmpose.structures import PoseDataSample

    from icconv_mm.tasks.pose import AEPoseEstimator

    meta = dict(
        input_size=tuple(args['heatmap_size_wh']),
        input_center=np.array(args['center']),
        input_scale=np.multiply(args['scale'], 200),
    )
    people = InstanceData(
        keypoints=keypoints[..., :2].numpy(), keypoint_scores=keypoints[..., 2].numpy(), bbox_scores=scores.numpy()
    )
    project = AEPoseEstimator.add_pred_to_datasample  # uses nothing of the estimator
    (sample,) = project(None, [people], None, [PoseDataSample(metainfo=meta)])
    return sample.pred_instances.keypoints


def test_candidates(case):
    for name in PARSING:
        _, data = case(f'ae_parse_{name}')
        heatmaps, tags = data['heatmaps'][0], np.moveaxis(data['tags'][0], -1, 0)
        tags = np.broadcast_to(tags, (len(tags), *heatmaps.shape))
        for joint, heatmap in enumerate(heatmaps):
            pixels, scores, peak_tags = _peaks(heatmap, tags[:, joint], 30, 5, 0.1)
            count = int((data['topk/val_k'][0, joint] > 0.1).sum())
            np.testing.assert_array_equal(scores.astype(np.float32), data['topk/val_k'][0, joint, :count])
            np.testing.assert_array_equal(pixels, data['topk/loc_k'][0, joint, :count])
            np.testing.assert_array_equal(peak_tags.astype(np.float32), data['topk/tag_k'][0, joint, :count])


def test_crowd_with_ties_is_solved_as_by_munkres_3(case):
    _, data = case('ae_parse_crowd36_ties')
    heatmaps, tags = torch.from_numpy(data['heatmaps'])[0], torch.from_numpy(data['tags'])[0]
    keypoints, scores = group_keypoints(heatmaps, tags, adjust=False, refine=False)
    expected, expected_scores = (data[f'adj0_ref0_munkres300/{name}'] for name in ('keypoints', 'scores'))
    np.testing.assert_allclose(keypoints, expected[..., :3], rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, expected_scores, rtol=0, atol=1e-5)
    assert len(data['adj0_ref0/scores']) != len(scores)  # with munkres 1.1.4


@pytest.mark.parametrize('kind', ['exp', 'max'])
def test_tag_loss(case, kind):
    meta, data = case('ae_loss')
    num_joints, height, width = (meta['args'][key] for key in 'KHW')
    flat = torch.from_numpy(data['tags']).double().requires_grad_()
    maps = flat.reshape(-1, num_joints, height, width)
    indices = _ours(data['joints'], num_joints, height * width)
    for name, value in zip(('push', 'pull'), losses.tag_loss(maps, indices, kind)):
        np.testing.assert_allclose(value.detach(), data[f'{kind}/{name}'], rtol=1e-6, atol=1e-9)
        grad = torch.autograd.grad(value.sum(), flat, retain_graph=True)[0].squeeze(-1).numpy()
        expected = np.zeros_like(grad)
        expected[tuple(data[f'{kind}/grad_index'].T)] = data[f'{kind}/grad_{name}_sum']
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('supervise_empty', [True, False])
def test_heatmap_loss(case, supervise_empty):
    _, data = case('ae_heatmap_loss')
    pred, gt, mask = (torch.from_numpy(data[key]).double() for key in ('pred', 'gt', 'mask'))
    pred.requires_grad_()
    value = losses.heatmap_loss(pred, gt, mask, supervise_empty)
    prefix = f'supervise_empty{int(supervise_empty)}'
    np.testing.assert_allclose(value.detach(), data[f'{prefix}/loss'], rtol=1e-6)
    grad = torch.autograd.grad(value.sum(), pred)[0]
    assert_close(data, f'{prefix}/grad_sum', grad, rtol=1e-6, atol=1e-9)


def test_losses_of_two_stages(case):
    meta, data = case('ae_multi_loss')
    num_joints = meta['args']['num_joints']
    outputs = [torch.from_numpy(data[f'out{i}']).double().requires_grad_() for i in (0, 1)]
    heatmap_loss, tag_loss = losses.MaskedHeatmapLoss(), losses.TagLoss()
    heatmap = sum(
        heatmap_loss(out[:, :num_joints], *(torch.from_numpy(data[f'{key}{i}']).double() for key in ('gt', 'mask')))
        for i, out in enumerate(outputs)
    )
    height, width = outputs[0].shape[-2:]
    push, pull = tag_loss(outputs[0][:, num_joints:], _ours(data['joints0'], num_joints, height * width))
    for name, value in (('heatmap', heatmap), ('push', push), ('pull', pull)):
        np.testing.assert_allclose(value.detach(), data[f'loss/{name}_loss'], rtol=1e-6)
    grads = torch.autograd.grad(heatmap + push + pull, outputs)
    for i, grad in enumerate(grads):
        assert_close(data, f'grad_out{i}', grad, rtol=1e-6, atol=1e-9)


def _ours(joints, num_joints, area):
    """0.29 packs a person's visible joints to the front as ``k * H * W + y * W + x``; ours stay at position k."""
    packed = torch.from_numpy(joints).long()
    indices = torch.zeros(*packed.shape[:2], num_joints, 2, dtype=torch.long)
    for image, person, slot in packed[..., 1].nonzero().tolist():
        joint, pixel = divmod(int(packed[image, person, slot, 0]), area)
        indices[image, person, joint] = torch.tensor([pixel, 1])
    return indices


@pytest.mark.parametrize('level', [0, 1])
def test_targets(case, level):
    meta, data = case('ae_target_square')
    size = meta['args']['heatmap_size_wh'][level]
    joints = data[f'in/joints{level}']
    heatmaps = targets.gaussian_heatmaps(joints[..., :2], joints[..., 2], (size, size), meta['args']['sigma'])
    np.testing.assert_allclose(heatmaps, data[f'udp0/target{level}'], rtol=0, atol=1e-6)
    indices = targets.keypoint_indices(joints[..., :2], joints[..., 2], (size, size))
    expected = _ours(data[f'udp0/joints{level}'][None], joints.shape[1], size * size)[0, : len(joints)]
    np.testing.assert_array_equal(indices, expected)


def test_pyramid_geometry(case):
    meta, data = case('ae_geometry')
    checked = 0
    for row in meta['rows']:
        if row['use_udp']:
            continue
        checked += 1
        if row.get('kind') == 'BottomUpGetImgSize':
            pyramid = multiscale.image_pyramid(row['image_wh'], (row['input_size'],) * 2, row['test_scale_factor'])
            assert list(pyramid.base_size) == row['base_size_wh']
            expected = row
        else:
            scale, smallest = row['current_scale'], row['min_scale']
            scales = sorted({scale, smallest}, reverse=True)
            pyramid = multiscale.image_pyramid(row['image_wh'], (row['input_size'],) * 2, scales)
            size = pyramid.sizes[scales.index(scale)]
            expected = row['get_multi_scale_size']
            assert list(size) == expected['size_wh']
            matrix = warp_matrix(size, pyramid.center, pyramid.extent)
            np.testing.assert_allclose(matrix, row['trans'], rtol=0, atol=1e-5)
            warped = warp(_pattern(*row['image_wh']), matrix, size)
            assert np.abs(warped[7::61, 5::61].astype(int) - data[f'{row["key"]}/sample']).max() <= 1
        assert list(pyramid.center) == expected['center']
        np.testing.assert_allclose(np.divide(pyramid.extent, 200), expected['scale'], rtol=1e-14)
    assert checked


def _pattern(width, height):
    """The image that was resized, as the reference describes it."""
    y, x, channel = np.ogrid[:height, :width, :3]
    return np.round(127.5 * (1 + np.sin(2 * np.pi * (x / 37 + y / 53) + channel))).astype(np.uint8)
