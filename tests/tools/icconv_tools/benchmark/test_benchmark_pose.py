"""The benchmark suite of decoding, on a small input and with a small network."""

import numpy as np
import pytest
import torch

from icconv_tools import benchmark


@pytest.fixture
def suite(mmpose, model, monkeypatch, tmp_path):
    from icconv_tools.benchmark.suites import pose as suite

    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))  # no published pattern at hand
    monkeypatch.setattr(suite, 'INPUT', 256)
    return suite


@pytest.fixture
def small_network(suite, model, monkeypatch):
    monkeypatch.setattr(suite, '_network', lambda device: (model.to(device), 'small'))


OPTIONS = benchmark.Options(repeats=2, warmup=1)


def test_decoding_is_timed_against_the_network_and_against_mmpose(suite, small_network):
    forward, mmpose = benchmark.run(['pose'], OPTIONS)
    assert forward.name == 'decoding / IC-R50 forward' and forward.limit == 0.1
    assert mmpose.name == 'decoding / mmpose AssociativeEmbedding' and mmpose.limit == 1 / 3
    for figure in (forward, mmpose):
        assert figure.suite == 'pose' and figure.subject is forward.subject
        assert figure.subject.repeats == figure.baseline.repeats == 2
        assert 0 < figure.subject.minimum <= figure.subject.median and figure.baseline.minimum > 0
        assert figure.ratio == figure.subject.median / figure.baseline.median
        assert figure.notes['input'] == 256 and figure.notes['keypoints'] == 17 and figure.notes['people'] >= 30
    assert forward.notes['pattern'] == 'small'


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (lambda keypoints, scores: (keypoints[:-1], scores[:-1]), r'\d+ people against \d+ of mmpose'),
        (lambda keypoints, scores: (keypoints + 5, scores), r'a keypoint .* pixels away from that of mmpose'),
    ],
    ids=['a person less', 'moved joints'],
)
def test_wrong_people_are_not_timed(suite, small_network, monkeypatch, wrong, message):
    group = suite.group_keypoints
    monkeypatch.setattr(suite, 'group_keypoints', lambda *maps: wrong(*group(*maps)))
    with pytest.raises(benchmark.Disagreement, match=message):
        list(benchmark.run(['pose'], OPTIONS))


def test_maps_are_those_of_a_crowd(suite):
    heatmaps, tags = suite.crowd()
    assert heatmaps.shape == (17, 256, 256) and tags.shape == (17, 256, 256, 1)
    for again, first in zip(suite.crowd(), (heatmaps, tags)):
        assert torch.equal(again, first)
    keypoints, _ = suite.group_keypoints(heatmaps, tags)
    assert len(keypoints) >= suite.PEOPLE
    assert np.isfinite(keypoints.numpy()).all()


@pytest.mark.slow
def test_network_is_the_published_one_with_an_analytic_pattern(suite):
    network, pattern = suite._network('cpu')
    assert pattern == suite.POSE_PATTERNS[1]
    assert len(network.backbone.layer3) == 6 and network.head.final_layer.out_channels == 34
    with torch.no_grad():
        heatmaps, tags = network(torch.randn(1, 3, 64, 64), None)
    assert heatmaps.shape == tags.shape == (1, 17, 16, 16)
