"""What counts as a difference between a file and its model."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from icconv_mm.errors import InputError
from icconv_mm.export.comparison import Differences
from icconv_mm.tasks.task import adapter_of

TASKS = {'': {'kind': 'semantic'}}


def segmented(logits):
    return SegDataSample(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits.argmax(0, keepdim=True)))


def test_a_pixel_whose_classes_score_the_same_is_a_tie():
    logits = torch.zeros(3, 4, 5)
    logits[0] = 1
    logits[1, 0, 0] = 1 - 1e-6  # nearly the first
    found = np.zeros((4, 5), np.uint8)
    found[0, 0] = 1
    differences = Differences(TASKS, {'': adapter_of('mmseg')})
    differences.add('a.jpg', {'': {'label_map': found}}, segmented(logits), lambda *_: False)
    assert differences.largest == {'label_map': 0}
    differences.require_small()
    found[3, 2] = 2
    differences.add('b.jpg', {'': {'label_map': found}}, segmented(logits), lambda *_: False)
    assert differences.largest == {'label_map': pytest.approx(1 / 20)}
    with pytest.raises(InputError, match=r'label_map by 0.05 \(limit 1e-05\) on b.jpg; nothing is written'):
        differences.require_small()
