"""One rule decides what is shown, in drawings, results and annotations."""

import subprocess
import sys

import numpy as np
import pytest
from shown_cases import CASES

from icconv_mm_runtime.coco import coco_records
from icconv_mm_runtime.drawing import drawing_of
from icconv_mm_runtime.thresholds import shown, threshold_of


def given(scores, labels, thresholds):
    task = {'kind': 'pose' if labels is None else 'detection', 'classes': ['a', 'b']}
    result = {'scores': np.float32(scores)}
    if labels is None:
        result |= {'keypoints': np.zeros((len(scores), 1, 2)), 'keypoint_scores': np.ones((len(scores), 1))}
    else:
        result |= {'labels': np.int64(labels), 'boxes': np.zeros((len(scores), 4), np.float32)}
    return task | ({} if thresholds is None else {'thresholds': thresholds}), result


@pytest.mark.parametrize(('scores', 'labels', 'thresholds', 'score_thr', 'indices'), CASES)
def test_what_is_shown(scores, labels, thresholds, score_thr, indices):
    task, result = given(scores, labels, thresholds)
    assert shown(task, result, score_thr).tolist() == indices
    assert len(drawing_of(task, result, score_thr).objects) == len(indices)
    if score_thr is not None:
        assert len(coco_records(task, result, 1, score_thr)) == len(indices)


def test_the_best_comes_first():
    order = shown({}, {'scores': np.float32([0.5, 0.9, 0.5]), 'labels': np.int64([0, 0, 0])})
    assert order.tolist() == [1, 0, 2]


def test_the_threshold_of_a_class():
    assert [threshold_of({'thresholds': [0.5, None]}, label) for label in range(3)] == [0.5, 0.3, 0.3]
    assert threshold_of({'thresholds': [0.5]}, 0, 0.0) == 0.0


def test_the_rule_imports_without_opencv():
    code = 'import sys; sys.modules["cv2"] = None; import icconv_mm_runtime.thresholds, icconv_mm_runtime.finite'
    subprocess.run([sys.executable, '-c', code], check=True)
