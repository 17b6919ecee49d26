import json

import pytest
from pycocotools.coco import COCO

from icconv_tools.miniature import ensure_miniature
from icconv_workshop.evidence.scales import ScalesOptions
from icconv_workshop.evidence.scores import average_precision


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'scales'
    ensure_miniature(folder, ScalesOptions(train=1, val=1, test=4))
    return folder / 'annotations'


def results(annotations, path, keep=lambda annotation: True):
    """The truth itself as predictions, those that ``keep`` wants."""
    truth = COCO(annotations / 'instances_test.json').anns.values()
    entries = [
        {key: annotation[key] for key in ('image_id', 'category_id', 'bbox')}
        for annotation in truth
        if keep(annotation)
    ]
    path.write_text(json.dumps([{**entry, 'score': 1.0} for entry in entries]))
    return path


def test_the_truth_scores_100(annotations, tmp_path):
    scores = average_precision(annotations / 'instances_test.json', results(annotations, tmp_path / 'r.json'), 'bbox')
    expected = {'AP', 'AP50', 'AP_small', 'AP_medium', 'AP_large', 'AP_context', 'AP_texture'}
    assert set(scores) == expected and all(value == pytest.approx(100) for value in scores.values())


def test_sizes_and_classes_are_told_apart(annotations, tmp_path):
    predictions = results(
        annotations,
        tmp_path / 'r.json',
        lambda annotation: annotation['area'] >= 16**2 and annotation['category_id'] < 5,
    )
    scores = average_precision(annotations / 'instances_test.json', predictions, 'bbox')
    assert scores['AP_large'] == pytest.approx(100)
    assert scores['AP_small'] < 5 and scores['AP_context'] == 0 and 0 < scores['AP'] < 100
