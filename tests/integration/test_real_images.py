"""Detectors learn four images of COCO val2017 by heart: Mask R-CNN their real polygons, RetinaNet with SEPC."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from workspaces import INSTANCE, short

pytestmark = pytest.mark.slow

SEPC = 'detection/retinanet_ic-r18_fpn-sepc_miniature.py'
MIM = Path(sys.executable).with_name('mim')
CONFIG = """
data_root = {root!r}
size = dict(type='Resize', scale=({size}, {size}), keep_ratio=True)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask={masks})]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
dataset = dict(
    ann_file='annotations/person_keypoints_sample.json', data_prefix=dict(img='val2017/'), data_root=data_root,
    metainfo=dict(_delete_=True, classes=('person',), palette=[(220, 20, 60)]))
train_dataloader = dict(
    batch_size=4, dataset=dict(**dataset, pipeline=[*load, size, dict(type='PackDetInputs')]))
val_dataloader = dict(
    batch_size=4,
    dataset=dict(**dataset, pipeline=[load[0], size, load[1], dict(type='PackDetInputs', meta_keys=keys)]))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + '/annotations/person_keypoints_sample.json')
test_evaluator = val_evaluator
param_scheduler = []
"""
MASKS = 'model = dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))'
PYRAMID = """
neck = [
    dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=32, num_outs=4, norm_cfg=dict(type='BN')),
    dict(type='icconv_mm.SEPC', in_channels=32, out_channels=32, num_outs=4, pconv_deform=True, lcconv_deform=True,
         ibn=True, lcconv_padding=1, start_level=2)]
model = dict(
    backbone=dict(depth=50), neck=neck, bbox_head=dict(num_classes=1, in_channels=32, feat_channels=32))
"""


def learned(workspace, config, iterations, first) -> tuple[Path, Path]:
    """The folder of the run and its checkpoint; its loss is at most half of the mean of the ``first`` losses."""
    folder = workspace.root / 'runs' / Path(config).stem
    assert workspace.tool('train', config, '--work-dir', folder, *short(iterations)) is None
    losses = list(workspace.losses(folder).values())
    assert len(losses) == iterations and np.isfinite(losses).all()
    assert np.mean(losses[-5:]) <= 0.5 * np.mean(losses[:first])
    return folder, folder / f'iter_{iterations}.pth'


def test_overfits_and_draws(workspace, coco_sample):
    data = CONFIG.format(root=str(coco_sample), size=256, masks=True)
    config = workspace.derive('images', INSTANCE, data + MASKS)
    folder, checkpoint = learned(workspace, config, 40, first=5)
    metrics = workspace.scalars('runs/images')[-1]
    assert metrics['coco/bbox_mAP_50'] > 0.5
    assert metrics['coco/segm_mAP_50'] > 0.5

    annotations = coco_sample / 'annotations/person_keypoints_sample.json'
    out = ('--out-dir', folder / 'out', '--ann-file', annotations, '--score-thr', 0.5)
    batch = ('--batch-size', 4)  # as in validation: what a batch is padded to changes predictions a little
    assert workspace.tool('infer', config, checkpoint, coco_sample / 'val2017', *out, *batch) is None
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / 'out/predictions.json')), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[1] == pytest.approx(metrics['coco/segm_mAP_50'], abs=2e-3)  # logged to three digits
    drawn = sorted((folder / 'out/vis').iterdir())
    assert [path.name for path in drawn] == sorted(entry['file_name'] for entry in truth.dataset['images'])
    for path in drawn:
        drawn_image, plain = cv2.imread(str(path)), cv2.imread(str(coco_sample / 'val2017' / path.name))
        assert drawn_image.shape == plain.shape
        assert np.abs(drawn_image.astype(int) - plain).max() > 50
    assert json.loads((folder / 'out/images.json').read_text())['categories'] == [{'id': 1, 'name': 'person'}]


def test_retinanet_with_ic_resnet50_overfits_images(workspace, coco_sample):
    """The loss halves, and ``mim test`` evaluates the checkpoint."""
    data = CONFIG.format(root=str(coco_sample), size=128, masks=False)
    config = workspace.derive('sepc_images', SEPC, data + PYRAMID)
    _, checkpoint = learned(workspace, config, 30, first=3)
    tested = workspace.root / 'runs/sepc_tested'
    predictions = ('test_evaluator.outfile_prefix', str(tested / 'results'))
    options = ('--work-dir', tested, *short(1), '='.join(predictions))
    done = workspace.run(MIM, 'test', 'icconv_mm', config, '--checkpoint', checkpoint, *options)
    assert 'coco/bbox_mAP' in done.stdout + done.stderr
    boxes = json.loads((tested / 'results.bbox.json').read_text())
    assert {box['category_id'] for box in boxes} == {1}
