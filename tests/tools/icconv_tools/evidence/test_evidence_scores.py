import json

import numpy as np
import pytest
from pycocotools.coco import COCO

from icconv_mm.datasets.miniature import ensure_miniature
from icconv_mm.datasets.miniature.scales import ScalesOptions
from icconv_tools.evidence.scores import average_precision, scores_of


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scales'
    ensure_miniature(folder, ScalesOptions(train=1, val=1, test=4))
    return folder / 'annotations'


def results(annotations, path, keep=lambda each: True):
    """The truth itself as predictions, those that ``keep`` wants."""
    truth = COCO(annotations / 'instances_test.json').anns.values()
    found = [{key: each[key] for key in ('image_id', 'category_id', 'bbox')} for each in truth if keep(each)]
    path.write_text(json.dumps([{**each, 'score': 1.0} for each in found]))
    return path


def test_the_truth_scores_100(annotations, tmp_path):
    scores = average_precision(annotations / 'instances_test.json', results(annotations, tmp_path / 'r.json'), 'bbox')
    expected = {'AP', 'AP50', 'AP_small', 'AP_medium', 'AP_large', 'AP_context', 'AP_texture'}
    assert set(scores) == expected and all(value == pytest.approx(100) for value in scores.values())


def test_sizes_and_classes_are_told_apart(annotations, tmp_path):
    kept = results(annotations, tmp_path / 'r.json', lambda each: each['area'] >= 16**2 and each['category_id'] < 5)
    scores = average_precision(annotations / 'instances_test.json', kept, 'bbox')
    assert scores['AP_large'] == pytest.approx(100)
    assert scores['AP_small'] < 5 and scores['AP_context'] == 0 and 0 < scores['AP'] < 100


def test_nothing_found_scores_0(annotations, tmp_path):
    scores = average_precision(
        annotations / 'instances_test.json', results(annotations, tmp_path / 'r.json', lambda _: False), 'bbox'
    )
    assert len(scores) == 7 and set(scores.values()) == {0.0}


def test_moved_joints_score_less(annotations, tmp_path):
    truth = COCO(annotations / 'person_keypoints_test.json').anns.values()
    found = [
        {'image_id': each['image_id'], 'category_id': 1, 'keypoints': each['keypoints'], 'score': 1.0} for each in truth
    ]
    path = tmp_path / 'r.json'
    path.write_text(json.dumps(found))
    scores = scores_of({'keypoints': path}, annotations, 'test')
    assert scores['pose/AP'] == pytest.approx(100) and 'pose/AP_context' not in scores
    rng = np.random.default_rng(0)
    for each in found:
        each['keypoints'] = (np.array(each['keypoints']) + rng.normal(0, 12, 51)).tolist()
    path.write_text(json.dumps(found))
    assert scores_of({'keypoints': path}, annotations, 'test')['pose/AP'] < 30
