"""Bottom-up pose: the four images with their real keypoints, mmpose's own entrances, two processes."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from workspaces import TINY, short

pytestmark = pytest.mark.slow

POSE = 'pose/ae_ic-r18_miniature.py'
MULTI_SCALE = ('test_dataloader.dataset.pipeline.1.scales=[2,1,0.5]', 'model.test_cfg.flip_test=True')
# The test shows every image whole, at 448 x 256, and so must the training: with a crop to its centre, joints at
# the borders would never be learned.
IMAGES = """
input_size = (448, 256)
codec = dict(type='icconv_mm.AECodec', input_size=input_size, heatmap_size=(112, 64), sigma=2, detection_threshold=0.1)
affine = dict(
    type='icconv_mm.BottomupAffine', input_size=input_size, rotate_factor=0, scale_factor=(1, 1), shift_factor=0,
    scale_type='long')
train_pipeline = [dict(type='LoadImage'), affine, dict(type='GenerateTarget', encoder=codec),
                  dict(type='icconv_mm.PackMultiScaleInputs')]
test_pipeline = [dict(type='LoadImage'), dict(type='icconv_mm.MultiScaleResize', input_size=input_size, scales=[1]),
                 dict(type='icconv_mm.PackMultiScaleInputs')]
dataset = dict(type='icconv_mm.BottomupCocoDataset', data_root={root!r}, data_prefix=dict(img='val2017/'),
               ann_file='annotations/person_keypoints_sample.json')
model = dict(
    backbone=dict(base_channels=32, num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), out_indices=(2,)),
    neck=None,
    head=dict(
        in_channels=128, in_index=-1, deconv_out_channels=(64, 64), deconv_kernel_sizes=(4, 4), decoder=codec,
        keypoint_loss=dict(peak_weight=0.0), tag_loss=dict(push_weight=0.001, pull_weight=0.001), init_cfg=None),
    test_cfg=dict(flip_test=False))
train_dataloader = dict(batch_size=4, dataset=dict(**dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(**dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={root!r} + '/annotations/person_keypoints_sample.json')
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=5e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type='CosineAnnealingLR', eta_min=0, by_epoch=False, begin=30, end={iterations}, T_max={iterations} - 30)]
"""
ITERATIONS = 200


@pytest.fixture(scope='module')
def images(workspace, coco_sample):
    """Config and checkpoint of a small network that has learned the four images by heart."""
    root = str(coco_sample)
    config = workspace.derive('pose_images', POSE, IMAGES.format(root=root, iterations=ITERATIONS))
    args = ('--work-dir', 'runs/pose_images', *short(ITERATIONS))
    assert workspace.tool('train', config, *args) is None
    return config, str(workspace.root / f'runs/pose_images/iter_{ITERATIONS}.pth')


@pytest.fixture(scope='module')
def miniature(workspace):
    """Config and checkpoint of the miniature model after a few iterations."""
    args = ('--work-dir', 'runs/pose', *short(2))
    assert workspace.tool('train', workspace.config(POSE), *args) is None
    return workspace.config(POSE), str(workspace.root / 'runs/pose/iter_2.pth')


def _tested(workspace, folder):
    return json.loads(next((workspace.root / folder).glob('*/*.json')).read_text())


def test_learns_real_keypoints(workspace, images):
    assert workspace.scalars('runs/pose_images')[-1]['coco/AP .5'] >= 0.9


def test_multi_scale_flip_and_batches(workspace, images):
    """``--tta`` and the options give the same, and so do one image and four at a time.

    The bound is much lower than for one scale: the network knows twelve people by heart, of one size and not flipped.
    """
    results = {}
    batch = {'test_dataloader.batch_size': 4}
    for name, options in (('tta', ['--tta', *short(1)]), ('batch', [*short(1, **batch), *MULTI_SCALE])):
        assert workspace.tool('test', *images, '--work-dir', f'runs/pose_{name}', *options) is None
        results[name] = _tested(workspace, f'runs/pose_{name}')
    for metric in ('coco/AP', 'coco/AP .5', 'coco/AR'):
        assert results['tta'][metric] == pytest.approx(results['batch'][metric], abs=1e-3)
    assert results['tta']['coco/AP .5'] > 0.2
    assert results['tta']['coco/AP'] != workspace.scalars('runs/pose_images')[-1]['coco/AP']


def test_infer_draws_skeletons(workspace, images, coco_sample):
    import cv2
    from pycocotools.coco import COCO

    folder = coco_sample / 'val2017'
    assert workspace.tool('infer', *images, folder, '--out-dir', 'runs/pose_predict', '--score-thr', 0.3) is None
    out = workspace.root / 'runs/pose_predict'
    people = COCO(str(out / 'images.json')).loadRes(str(out / 'predictions.json')).anns.values()
    assert sum(person['score'] > 0.3 for person in people) >= 10
    assert all(len(person['keypoints']) == 51 for person in people)
    for path in folder.iterdir():
        drawn = cv2.imread(str(out / 'vis' / path.name))
        assert np.abs(drawn.astype(int) - cv2.imread(str(path))).max() > 50


def test_inferencers_of_mmpose(workspace, images, coco_sample):
    from mmpose.apis import MMPoseInferencer, inference_bottomup, init_model

    config, checkpoint = images
    image = str(coco_sample / 'val2017/000000000785.jpg')
    (sample,) = inference_bottomup(init_model(config, checkpoint, device='cpu'), image)
    best = sample.pred_instances.bbox_scores.argmax()
    inferencer = MMPoseInferencer(config, checkpoint, device='cpu')
    (people,) = next(inferencer(image, vis_out_dir=str(workspace.root / 'runs/pose_vis')))['predictions']
    np.testing.assert_allclose(people[best]['keypoints'], sample.pred_instances.keypoints[best], atol=1e-3)
    assert list(Path(workspace.root / 'runs/pose_vis').iterdir())


def test_nobody_found_gives_ap_0(workspace, miniature):
    nobody = {'model.head.decoder.detection_threshold': 100}
    args = ('--work-dir', 'runs/pose_nobody', '--out', 'runs/pose_nobody.pkl', *short(1, **nobody))
    assert workspace.tool('test', *miniature, *args) is None
    with open(workspace.root / 'runs/pose_nobody.pkl', 'rb') as file:
        predictions = pickle.load(file)
    assert [sample['pred_instances']['keypoints'].shape for sample in predictions] == [(0, 17, 2)] * TINY.val
    assert _tested(workspace, 'runs/pose_nobody')['coco/AP'] == 0


def test_amp_trains_like_float32(workspace):
    losses = {}
    for name, options in (('float32', []), ('amp', ['--amp'])):
        args = ('--work-dir', f'runs/pose_{name}', *options, *short(3))
        assert workspace.tool('train', workspace.config(POSE), *args) is None
        losses[name] = [line for line in workspace.scalars(f'runs/pose_{name}') if 'loss' in line]
    assert len(losses['amp']) == 3
    for low, full in zip(losses['amp'], losses['float32']):
        for key in ('loss_kpt', 'loss_push', 'loss_pull'):
            assert low[key] == pytest.approx(full[key], rel=0.05, abs=1e-5), key
    assert losses['amp'][-1]['loss_kpt'] != losses['float32'][-1]['loss_kpt']


def test_two_processes_give_the_same_ap_as_one(workspace, images):
    torchrun = (sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2)
    tool = (workspace.repo / 'tools/test.py', *images, '--launcher', 'pytorch', '--work-dir', 'runs/pose_two')
    workspace.run(*torchrun, *tool, *short(1))
    one = workspace.scalars('runs/pose_images')[-1]
    two = _tested(workspace, 'runs/pose_two')
    for name in ('coco/AP', 'coco/AP .5', 'coco/AR'):
        assert two[name] == pytest.approx(one[name], abs=1e-3)  # logged to a few digits
