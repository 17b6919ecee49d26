"""Labels of a packed item, as they are drawn: what the libraries pack, in whatever form."""

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData

from icconv_mm.app.adapters.libraries import adapter_of

META = dict(classes=('cat', 'dog'), palette=[(10, 20, 30), (40, 50, 60)])


def test_boxes_and_masks():
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import PolygonMasks

    boxes = torch.tensor([[1.0, 2, 11, 22], [5, 5, 9, 9]])
    segmentation = np.array([1.0, 2, 11, 2, 11, 22])
    labels = InstanceData(bboxes=HorizontalBoxes(boxes), labels=torch.tensor([1, 0]))
    labels.masks = PolygonMasks([[segmentation], [segmentation]], 30, 40)
    sample = DetDataSample(gt_instances=labels)
    sample.gt_sem_seg = PixelData(sem_seg=torch.ones(1, 30, 40, dtype=torch.uint8))  # of panoptic data
    content = adapter_of('mmdet').annotations(sample, META)
    assert [(mark.text, mark.color) for mark in content.objects] == [('dog', (40, 50, 60)), ('cat', (10, 20, 30))]
    assert np.array_equal([mark.box for mark in content.objects], boxes)
    assert content.objects[0].mask.shape == (30, 40) and content.objects[0].mask[4, 9] and content.seg_map.all()
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([1, 0]))
    assert len(adapter_of('mmdet').annotations(sample, META).objects) == 2


def test_seg_maps():
    from mmseg.structures import SegDataSample

    labels = torch.tensor([[[0, 1, 255]]])
    content = adapter_of('mmseg').annotations(SegDataSample(gt_sem_seg=PixelData(data=labels)), META)
    assert content.seg_map.tolist() == [[0, 1, 255]] and content.names == META['classes']
    assert adapter_of('mmseg').annotations(SegDataSample(), META).seg_map is None


def test_classes():
    from mmpretrain.structures import DataSample

    assert adapter_of('mmpretrain').annotations(DataSample().set_gt_label([1, 0]), META).title == 'dog, cat'
    assert not adapter_of('mmpretrain').annotations(DataSample(), META).title
