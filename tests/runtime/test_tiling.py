"""Predictions for tiles become one prediction, those for a reduced image the whole one's, and all are drawn."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData

from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.prediction.network import predict_tiles
from icconv_mm.errors import ArgumentError
from icconv_mm_runtime.coco import coco_records, encode_rle
from icconv_mm_runtime.drawing import drawing_of
from icconv_mm_runtime.results import Result
from icconv_mm_runtime.tiling import join_tiles, tile_corners

SIZE, TILE = (90, 150), 64


def _pieces():
    return [(top, left) for top, left in tile_corners(SIZE, TILE)]


def test_boxes_of_tiles():
    """A box that several tiles show whole is there once; a box of another class at its place stays."""
    from mmdet.structures import DetDataSample

    truth = torch.tensor([[5.0, 5, 25, 25], [50, 40, 70, 60], [120, 60, 148, 88], [50, 40, 70, 60]])
    labels = torch.tensor([0, 1, 0, 2])
    parts = []
    for number, (top, left) in enumerate(_pieces()):
        boxes = truth - torch.tensor([left, top, left, top])
        inside = (boxes >= 0).all(1) & (boxes <= TILE).all(1)
        instances = InstanceData(
            bboxes=boxes[inside], labels=labels[inside], scores=torch.full((int(inside.sum()),), 0.5 + number / 100)
        )
        parts.append(DetDataSample(pred_instances=instances, metainfo=dict(ori_shape=(TILE, TILE))))
    assert sum(len(sample.pred_instances) for sample in parts) > len(truth)
    adapter = adapter_of('mmdet')
    description = adapter.described(dict(classes=('a', 'b', 'c')))
    instances = join_tiles({'': description}, [{'': adapter.predictions(sample)} for sample in parts], SIZE, TILE)['']
    order = instances['labels'] * 1000 + instances['boxes'][:, 0]
    expected = labels * 1000 + truth[:, 0]
    np.testing.assert_array_equal(instances['boxes'][order.argsort()], truth[expected.argsort()])
    content = drawing_of(description, instances, 0.3)
    assert sorted(mark.text[0] for mark in content.objects) == ['a', 'a', 'b', 'c']


class Network:
    """A network whose result has, for each tile, its mean and the left of its brightest pixel."""

    settings = ''

    def __init__(self, kind, **arrays):
        self.descriptions, self.arrays = {'': {'kind': kind, 'classes': ['a']}}, arrays
        self.image = np.zeros((*SIZE, 3), np.uint8)
        self.image[70:80, 100:120] = 255

    def pixels(self, image, longest=None):
        return self.image

    def read(self, image):
        return image.image, None

    def run_batch(self, batch):
        return [cv2.boundingRect(image[..., 0]) for image in batch]

    def result(self, image, sample, longest=None):
        x, y, w, h = sample
        boxes = np.float32([[x, y, x + w, y + h]] if w else np.zeros((0, 4)))
        arrays = {'boxes': boxes, 'scores': np.ones(len(boxes)), 'labels': np.zeros(len(boxes), int)}
        return Result(str(image.path), None, {'': arrays | self.arrays}, self.descriptions, shape=image.image.shape[:2])


def test_tiles_of_any_network():
    """An object that four tiles show in parts is one box of the image, which is drawn; masks are not joined."""
    network = Network('detection')
    result = predict_tiles(network, Path('a.png'), TILE)
    (box,) = result.tasks['']['boxes']
    assert box.tolist() == [100, 70, 120, 80] and (result.ori_shape, result.path) == (SIZE, 'a.png')
    assert result.to_coco()[0]['bbox'] == [100, 70, 20, 10]
    assert (result.plot(0) != network.image).any() and (result.plot(2.0) == network.image).all()
    for other in (Network('pose'), Network('detection', masks=np.zeros((0, TILE, TILE), bool))):
        with pytest.raises(ArgumentError, match='tile: only boxes and segmentation maps'):
            predict_tiles(other, Path('a.png'), TILE)


def test_seg_maps_of_tiles():
    """Each pixel has its label, also where tiles overlap."""
    from mmseg.structures import SegDataSample

    truth = torch.arange(SIZE[0] * SIZE[1]).view(SIZE) // 97 % 7
    parts = []
    for top, left in _pieces():
        seg_map = truth[top : top + TILE, left : left + TILE].clone()
        sample = SegDataSample(
            pred_sem_seg=PixelData(data=seg_map[None]), metainfo=dict(ori_shape=tuple(seg_map.shape))
        )
        parts.append({'': adapter_of('mmseg').predictions(sample)})
    (whole,) = join_tiles({'': {'kind': 'semantic'}}, parts, SIZE, TILE).values()
    np.testing.assert_array_equal(whole['seg_map'], truth)


def test_reduced_images():
    """Boxes, keypoints and masks are those of the whole image."""
    from mmdet.structures import DetDataSample
    from mmpose.structures import PoseDataSample

    instances = InstanceData(
        bboxes=torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([0]), scores=torch.tensor([0.9])
    )
    instances.masks = torch.zeros(1, 10, 20, dtype=torch.bool)
    instances.masks[0, 2:4, 1:3] = True
    sample = DetDataSample(pred_instances=instances, metainfo=dict(ori_shape=(10, 20)))
    adapter_of('mmdet').enlarge(sample, (40, 80))
    instances = adapter_of('mmdet').predictions(sample)
    (record,) = coco_records({'kind': 'detection'}, instances, 1, 0.0, [5], sample.ori_shape)
    whole = np.zeros((40, 80), dtype=bool)
    whole[8:16, 4:12] = True
    assert record['bbox'] == [4, 8, 8, 8] and record['segmentation'] == encode_rle(whole)
    people = InstanceData(
        keypoints=np.array([[[3.0, 1.0], [5.0, 2.0]]]),
        keypoint_scores=np.array([[0.9, 0.01]]),
        bbox_scores=np.array([0.8]),
    )
    sample = PoseDataSample(pred_instances=people, metainfo=dict(ori_shape=(10, 20)))
    adapter_of('mmpose').enlarge(sample, (20, 40))
    content = adapter_of('mmpose').drawing(sample, dict(keypoints=['a', 'b'], skeleton=[(0, 1)]), 0.3)
    assert np.allclose(content.objects[0].keypoints, [[6.5, 2.5], [10.5, 4.5]])
    assert content.objects[0].shown.tolist() == [True, False] and content.objects[0].skeleton == [(0, 1)]
