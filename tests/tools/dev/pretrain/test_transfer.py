"""Trainings from pretrained weights: a detector on stitched images, then the user's images, again and after a stop."""

import importlib
import json

import pytest

pytest.importorskip('mmdet')

from icconv_mm.app.evaluation.hook import EvaluationHook
from icconv_mm.checkpoints.reading import read


@pytest.fixture
def transfer(tiny, tmp_path):
    """Runs the command on 8 stitched images, whose folder it makes; returns the lines of the results."""
    importlib.import_module('stitched').main(
        [str(tiny), '--out', str(tmp_path / 'images'), '--train', '6', '--val', '2', '--size', '64']
    )

    def run(name, *options):
        fixed = ['--out', str(tmp_path / name), '--size', '64', '--epochs', '1']
        importlib.import_module('transfer').main([str(tmp_path / 'images'), *fixed, *options])
        return [json.loads(line) for line in (tmp_path / name / 'results.jsonl').read_text().splitlines()]

    return run


@pytest.fixture
def classifier(tiny, tmp_path):
    fixed = ['--epochs', '1', '--tiles', '1', '--batch', '6', '--size', '32']
    importlib.import_module('classification').main([str(tiny), '--out', str(tmp_path / 'pretrained'), *fixed])
    return tmp_path / 'pretrained' / 'classifier.pth'


def distance(one, other, key):
    """Returns the largest difference of a weight in two checkpoints; a training of 3 steps changes it by .01."""
    return float((read(one)['state_dict'][key] - read(other)['state_dict'][key]).abs().max())


@pytest.mark.slow
def test_a_detector_starts_from_the_backbone_and_the_next_one_from_the_detector(transfer, classifier, tmp_path):
    (first,), (again,) = (transfer(name, '--weights', str(classifier)) for name in ('detectors', 'again'))
    assert first['loss'] == again['loss'] and first['run'] == again['run']
    detector = tmp_path / 'detectors' / first['run'] / 'epoch_1.pth'
    assert distance(detector, classifier, 'backbone.layer4.0.conv1.weight') < 0.01
    random, second = transfer('next', '--weights', 'none', str(detector), '--seeds', '1')
    checkpoints = [tmp_path / 'next' / row['run'] / 'epoch_1.pth' for row in (second, random)]
    for key in ('backbone.layer4.0.conv1.weight', 'neck.lateral_convs.0.conv.weight', 'rpn_head.rpn_conv.weight'):
        near, far = (distance(path, detector, key) for path in checkpoints)
        assert near < 0.01 < far, key
    assert {'weights', 'core_seconds', 'batch', 'is_whole', 'coco/bbox_mAP'} <= second.keys()


@pytest.mark.slow
def test_a_call_does_what_is_left(transfer, tmp_path, monkeypatch):
    """A run that was interrupted goes on after its last epoch, and ends as it would have; one with a line is done."""
    (whole,) = transfer('whole', '--epochs', '2')

    def stopping(self, runner):
        if runner.epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(EvaluationHook, 'before_train_epoch', stopping)
        transfer('part', '--epochs', '2')
    (part,) = transfer('part', '--epochs', '2')
    assert (part['loss'], part['is_whole'], whole['is_whole']) == (whole['loss'], False, True)
    monkeypatch.delattr(importlib.import_module('transfer'), 'trained')
    assert transfer('part', '--epochs', '2') == [part]


def test_weights_that_are_not_there(transfer):
    with pytest.raises(SystemExit, match=r'^error: weights: no such file: nothing.pth'):
        transfer('it', '--weights', 'nothing.pth')
