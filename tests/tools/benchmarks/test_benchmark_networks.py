"""Whole networks, with small ones in their place."""

import shutil

import benchmarks
import pytest
import torch
from benchmarks import networks
from benchmarks.suites import backbone

from icconv_mm.backbones import ICResNet
from icconv_mm.ops import use_backend
from icconv_mm.ops.backend import requested

OPTIONS = benchmarks.Options(repeats=1, warmup=0)


def case(form: str, limit: float | None = 1.06) -> networks.Case:
    return networks.Case(
        'small',
        lambda: ICResNet(18, 'geometric_d4', base_channels=16),
        lambda: ICResNet(18, 'dense', base_channels=16),
        2,
        (64, 96),
        form,
        limit,
        {'pattern': 'geometric_d4'},
    )


@pytest.mark.parametrize('form', ['eager', 'inference form', 'step'])
def test_ours_against_dense_and_against_the_composition(form):
    dense, composition = networks.compare('backbone', case(form), OPTIONS)
    assert dense.name == f'small 2x3x64x96 {form}: ours / dense' and dense.limit == 1.06
    assert composition.name == f'small 2x3x64x96 {form}: ours / composition' and composition.limit is None
    assert dense.subject is composition.subject and dense.subject.median > 0
    served = dict(zip(*[iter(dense.notes['backends'].split())] * 2))
    assert set(served) <= {'cpu', 'reference'} and sum(map(int, served.values())) == 16
    assert dense.notes['share of matmul peak'].count('%') == 2


def test_a_scaled_picture_has_no_limit():
    options = benchmarks.Options(repeats=1, warmup=0, scale=0.5)
    figure, _ = networks.compare('backbone', case('eager'), options)
    assert figure.limit is None and figure.notes['scaled to'] == '32x48'


def test_the_composition_is_the_reference():
    network = ICResNet(18, 'geometric_d4', base_channels=16).eval()

    def call():
        with torch.no_grad():
            return network(torch.randn(1, 3, 32, 32))

    with use_backend('reference'):
        assert networks.count_backends(call) == {'reference': 16}


def test_an_inference_form_that_differs_is_not_timed(monkeypatch):
    right = networks.deploy

    def wrong(network):
        form = right(network)
        form.layer3[0].conv2.bias.data += 0.1
        return form

    monkeypatch.setattr(networks, 'deploy', wrong)
    monkeypatch.setattr(networks.contest, 'hold', lambda *_: pytest.fail('timed'))
    with pytest.raises(benchmarks.Disagreement, match=r'small 2x3x64x96 inference form: .* in .*: result 2 is off by'):
        networks.compare('backbone', case('inference form'), OPTIONS)


def test_gradients_that_differ_are_not_timed(monkeypatch):
    class Wrong(ICResNet):
        """One gradient is off by a thousandth where the compiled operators run."""

        def forward(self, x):
            out = super().forward(x)
            if requested() == 'reference':
                return out
            weight = self.layer1[0].conv2.weight
            return *out[:-1], out[-1] + (1e-3 * (weight - weight.detach()) * weight.detach()).sum()

    monkeypatch.setattr(networks.contest, 'hold', lambda *_: pytest.fail('timed'))
    wrong = case('step')._replace(ours=lambda: Wrong(18, 'geometric_d4', base_channels=16))
    with pytest.raises(
        benchmarks.Disagreement, match=r'small 2x3x64x96 step: ours in .*: result \d+ is off by .* norm'
    ):
        networks.compare('backbone', wrong, OPTIONS)


def test_the_cases_and_their_limits(monkeypatch, tmp_path, shared):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    assert [c.limit for c in backbone.cases(OPTIONS) if c.name.startswith('IC')] == [None] * 7
    shutil.copytree(shared / 'patterns', tmp_path / 'patterns')
    assert {c.label: c.limit for c in backbone.cases(OPTIONS)} == {
        'IC-R50-k9 1x3x800x1088 eager': 1.06,
        'IC-R50-k9 1x3x800x1088 inference form': 1.06,
        'IC-R50-k9 1x3x224x224 eager': 1.06,
        'IC-R50-k9 1x3x224x224 inference form': 1.06,
        'IC-R50-k9 2x3x320x320 step': 1.20,
        'IC-R50-k13 pose 1x3x640x640 eager': 1.12,
        'IC-R101-k9 1x3x800x1088 eager': 1.06,
        'PyConvResNet-50 1x3x800x1088 eager': 1.15,
    }
    on_gpu = {c.label: c.limit for c in backbone.cases(benchmarks.Options(device='cuda'))}
    assert on_gpu['IC-R50-k9 2x3x800x1344 eager'] == 1.2 and on_gpu['IC-R50-k9 2x3x800x1344 step'] == 1.3


@pytest.mark.slow
@pytest.mark.parametrize('only', ['IC-R50-k9 1x3x224x224', 'R50-k9 2x3x320x320 step', 'pose', 'R101', 'PyConvResNet'])
def test_suite_backbone(only, monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    options = benchmarks.Options(repeats=1, warmup=0, scale=0.15, only=only)
    figures = list(benchmarks.run(['backbone'], options))
    assert figures and all(only in figure.name and figure.suite == 'backbone' for figure in figures)


@pytest.mark.slow
def test_suite_detector(monkeypatch, tmp_path):
    pytest.importorskip('mmdet.models')
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    options = benchmarks.Options(repeats=1, warmup=0, scale=0.2)
    names = [figure.name for figure in benchmarks.run(['detector'], options)]
    assert [name.partition(': ')[0] for name in names[::2]] == [
        'RetinaNet IC-R50-k9 1x3x800x1088 eager',
        'RetinaNet IC-R50-k9 1x3x800x1088 inference form',
        'RetinaNet IC-R50-k9 2x3x320x320 step',
    ]
