"""What counts as a difference between a file and its model."""

import numpy as np
import pytest
import torch

pytest.importorskip('mmseg')

from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.export.comparison import Differences, compared
from icconv_mm.errors import InputError

TASKS = {'': {'kind': 'semantic'}}


def segmented(logits):
    return SegDataSample(seg_logits=PixelData(data=logits), pred_sem_seg=PixelData(data=logits.argmax(0, keepdim=True)))


class Anybody:
    """An adapter whose model found one person."""

    def predictions(self, sample):
        return person(0.0)


def person(x):
    return {'keypoints': np.full((1, 2, 2), x), 'keypoint_scores': np.ones((1, 2)), 'scores': np.ones(1)}


def test_people_who_differ_for_a_rounding_are_counted_alone():
    differences = Differences({'': {'kind': 'pose', 'grouping': {'nms_kernel': 5}}}, {'': Anybody()})
    differences.add('a.jpg', {'': person(0.0)}, None, lambda *_: pytest.fail('nobody differs'))
    differences.add('b.jpg', {'': person(9.0)}, None, lambda path, name: (path, name) == ('b.jpg', ''))
    assert differences.ties == {'b.jpg'}
    differences.require_small()
    differences.add('c.jpg', {'': person(9.0)}, None, lambda *_: False)
    with pytest.raises(InputError, match=r'missing by 2 \(limit 0\) on c.jpg; nothing is written'):
        differences.require_small()


@pytest.mark.parametrize(('settings', 'missing'), [({}, 2), ({'most': 1}, 0), ({'most': 2}, 2), ({'least': 1.0}, 0)])
def test_a_box_elsewhere_is_a_tie_at_the_end_of_a_full_list_or_at_the_threshold_alone(settings, missing):
    result, expected = ({'boxes': np.full((1, 4), x), 'scores': np.ones(1), 'labels': np.zeros(1)} for x in (0.0, 50.0))
    assert compared({'kind': 'detection', **settings}, result, expected)['missing'] == missing


def test_a_pixel_whose_classes_score_the_same_is_a_tie():
    logits = torch.zeros(3, 4, 5)
    logits[0] = 1
    logits[1, 0, 0] = 1 - 1e-6  # nearly the first
    seg_map = np.zeros((4, 5), np.uint8)
    seg_map[0, 0] = 1
    differences = Differences(TASKS, {'': adapter_of('mmseg')})
    differences.add('a.jpg', {'': {'seg_map': seg_map}}, segmented(logits), lambda *_: False)
    assert differences.largest == {'seg_map': 0}
    differences.require_small()
    seg_map[3, 2] = 2
    differences.add('b.jpg', {'': {'seg_map': seg_map}}, segmented(logits), lambda *_: False)
    assert differences.largest == {'seg_map': pytest.approx(1 / 20)}
    with pytest.raises(InputError, match=r'seg_map by 0.05 \(limit 1e-05\) on b.jpg; nothing is written'):
        differences.require_small()
