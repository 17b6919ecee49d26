"""The annotations that predictions are evaluated against."""

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

pytest.importorskip('mmdet')

POLYGON = [[10, 10, 30, 10, 10, 30]]


@pytest.mark.parametrize(
    ('has_masks', 'mask', 'area'),
    [(True, POLYGON, 200), (False, POLYGON, 200), (False, [[]], 400), (True, None, 400), (False, None, 400)],
)
def test_areas_are_those_of_masks(has_masks, mask, area):
    """As in COCO's files, which decide whether an object is small; a damaged mask is nothing to a detector."""
    from mmdet.structures import DetDataSample

    from icconv_mm.tasks.detection.adapter import Adapter

    sample = DetDataSample(metainfo={'ori_shape': (48, 64)})
    sample.pred_instances = InstanceData(bboxes=torch.zeros(0, 4), **({'masks': torch.zeros(0)} if has_masks else {}))
    entry = {'bbox': [10, 10, 30, 30], 'bbox_label': 0, 'ignore_flag': 0} | ({'mask': mask} if mask else {})
    told = Adapter().truth(sample, {'instances': [entry]})
    np.testing.assert_allclose(told['areas'], [area], rtol=0.1)
    assert ('masks' in told) == (has_masks and mask is not None)
