"""Mask R-CNN with an IC-ResNet on four photographs of COCO val2017, with their real polygons."""

import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from workspaces import INSTANCE, short

pytestmark = pytest.mark.slow

ITERATIONS = 40
CONFIG = """
data_root = {root!r}
size = dict(type='Resize', scale=(256, 256), keep_ratio=True)
load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
dataset = dict(
    ann_file='annotations/person_keypoints_sample.json', data_prefix=dict(img='val2017/'), data_root=data_root,
    metainfo=dict(_delete_=True, classes=('person',), palette=[(220, 20, 60)]))
model = dict(roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))
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


def test_overfits_and_draws(workspace, coco_sample):
    config = workspace.derive('photographs', INSTANCE, CONFIG.format(root=str(coco_sample)))
    folder = workspace.root / 'runs/photographs'
    assert workspace.tool('train', config, '--work-dir', folder, *short(ITERATIONS)) is None

    losses = list(workspace.losses('runs/photographs').values())
    assert len(losses) == ITERATIONS
    assert np.mean(losses[-5:]) <= 0.5 * np.mean(losses[:5])
    metrics = workspace.scalars('runs/photographs')[-1]
    assert metrics['coco/bbox_mAP_50'] > 0.5
    assert metrics['coco/segm_mAP_50'] > 0.5

    annotations = coco_sample / 'annotations/person_keypoints_sample.json'
    out = ('--out-dir', folder / 'out', '--ann-file', annotations, '--score-thr', 0.5)
    batch = ('--batch-size', 4)  # as in validation: what a batch is padded to changes predictions a little
    checkpoint = folder / f'iter_{ITERATIONS}.pth'
    assert workspace.tool('infer', config, checkpoint, coco_sample / 'val2017', *out, *batch) is None
    truth = COCO(str(annotations))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / 'out/predictions.json')), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[1] == pytest.approx(metrics['coco/segm_mAP_50'], abs=2e-3)  # logged to three digits
    drawn = sorted((folder / 'out/vis').iterdir())
    assert [path.name for path in drawn] == sorted(image['file_name'] for image in truth.dataset['images'])
    for path in drawn:
        picture, plain = cv2.imread(str(path)), cv2.imread(str(coco_sample / 'val2017' / path.name))
        assert picture.shape == plain.shape
        assert np.abs(picture.astype(int) - plain).max() > 50
    assert json.loads((folder / 'out/images.json').read_text())['categories'] == [{'id': 1, 'name': 'person'}]
