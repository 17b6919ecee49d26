"""Predictions for tiles become one prediction, those for a reduced image the whole one's, and all are drawn."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData, PixelData

from icconv_mm.app.adapters.base import NotSupportedError
from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.prediction.predict import tile_corners
from icconv_mm_runtime.coco import encode_rle

SIZE, TILE = (90, 150), 64


def _pieces():
    return [(top, left) for top, left in tile_corners(SIZE, TILE)]


def test_boxes_of_tiles():
    """A box that several tiles show whole is there once; a box of another class at its place stays."""
    pytest.importorskip('mmdet')
    from mmdet.structures import DetDataSample

    truth = torch.tensor([[5.0, 5, 25, 25], [50, 40, 70, 60], [120, 60, 148, 88], [50, 40, 70, 60]])
    labels = torch.tensor([0, 1, 0, 2])
    parts = []
    for number, (top, left) in enumerate(_pieces()):
        own = truth - torch.tensor([left, top, left, top])
        inside = (own >= 0).all(1) & (own <= TILE).all(1)
        found = InstanceData(
            bboxes=own[inside], labels=labels[inside], scores=torch.full((int(inside.sum()),), 0.5 + number / 100)
        )
        parts.append((DetDataSample(pred_instances=found, metainfo=dict(ori_shape=(TILE, TILE))), (top, left)))
    assert sum(len(sample.pred_instances) for sample, _ in parts) > len(truth)
    whole = adapter_of('mmdet').joined(parts, SIZE, TILE)
    found = whole.pred_instances
    order = found.labels * 1000 + found.bboxes[:, 0]
    expected = labels * 1000 + truth[:, 0]
    assert torch.equal(found.bboxes[order.argsort()], truth[expected.argsort()]) and whole.ori_shape == SIZE
    content = adapter_of('mmdet').drawing(whole, dict(classes=('a', 'b', 'c')), 0.3)
    assert sorted(mark.text[0] for mark in content.objects) == ['a', 'a', 'b', 'c']
    parts[0][0].pred_instances.masks = torch.zeros(len(parts[0][0].pred_instances), TILE, TILE, dtype=torch.bool)
    with pytest.raises(NotSupportedError, match='tile: only boxes and segmentation maps'):
        adapter_of('mmdet').joined(parts, SIZE, TILE)


def test_seg_maps_of_tiles():
    """Each pixel has its label, also where tiles overlap."""
    pytest.importorskip('mmseg')
    from mmseg.structures import SegDataSample

    truth = torch.arange(SIZE[0] * SIZE[1]).view(SIZE) // 97 % 7
    parts = []
    for top, left in _pieces():
        own = truth[top : top + TILE, left : left + TILE].clone()
        sample = SegDataSample(pred_sem_seg=PixelData(data=own[None]), metainfo=dict(ori_shape=tuple(own.shape)))
        parts.append((sample, (top, left)))
    whole = adapter_of('mmseg').joined(parts, SIZE, TILE)
    assert torch.equal(whole.pred_sem_seg.data[0].long(), truth) and whole.ori_shape == SIZE


def test_reduced_images():
    """Boxes, keypoints and masks are those of the whole image."""
    pytest.importorskip('mmpose')
    pytest.importorskip('mmdet')
    from mmdet.structures import DetDataSample
    from mmpose.structures import PoseDataSample

    found = InstanceData(bboxes=torch.tensor([[1.0, 2, 3, 4]]), labels=torch.tensor([0]), scores=torch.tensor([0.9]))
    found.masks = torch.zeros(1, 10, 20, dtype=torch.bool)
    found.masks[0, 2:4, 1:3] = True
    sample = DetDataSample(pred_instances=found, metainfo=dict(ori_shape=(10, 20)))
    adapter_of('mmdet').enlarge(sample, (40, 80))
    (record,) = adapter_of('mmdet').coco_records(sample, 1, [5], 0.0)
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
