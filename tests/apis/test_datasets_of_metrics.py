"""Annotation files of metrics: a missing one is told at once, a bad one where the evaluation fails."""

import pytest
from mmengine.config import Config

from icconv_mm.apis.datasets import check_data_paths, explaining_metrics
from icconv_mm.datasets.checks import DatasetError, MissingDataError
from icconv_mm.errors import InputError


@pytest.fixture
def cfg(tmp_path) -> Config:
    """With the metric inside of another one, as networks for several tasks have it."""
    file = tmp_path / 'a.json'
    file.write_text('[]')
    metric = {
        'type': 'icconv_mm.TaskMetric',
        'task': 'a',
        'metric': {'type': 'mmdet.CocoMetric', 'ann_file': str(file)},
    }
    return Config({'val_evaluator': [metric]})


def test_bad_annotations_are_the_reason(cfg):
    reason = r'val_evaluator\.ann_file: .*a\.json: not a COCO annotation file'
    with pytest.raises(DatasetError, match=reason), explaining_metrics(cfg):
        raise KeyError('area')


def test_a_number_in_the_place_of_a_path():
    dataset = {'type': 'CocoDataset', 'data_root': 3}
    cfg = Config({'train_dataloader': {'dataset': dataset}})
    with pytest.raises(InputError, match=r'^train_dataloader\.dataset: .*not int'):
        check_data_paths(cfg, 'train')


def test_missing_annotations(cfg):
    check_data_paths(cfg, 'train', 'val')
    cfg.val_evaluator[0].metric.ann_file = '/nowhere/a.json'
    with pytest.raises(MissingDataError, match=r'val_evaluator\.ann_file: no such file: /nowhere/a\.json'):
        check_data_paths(cfg, 'train', 'val')
