"""Whole networks, with small ones in their place."""

import pytest

from icconv_mm.backbones import ICResNet, ResNet
from icconv_mm.ops.dispatch import requested
from icconv_workshop import benchmark
from icconv_workshop.benchmark import networks
from icconv_workshop.benchmark.patterns import find_pattern

OPTIONS = benchmark.Options(repeats=1, warmup=0)


def case(form: str) -> networks.Case:
    return networks.Case(
        'small',
        lambda: ICResNet(18, 'geometric_d4', base_channels=16),
        {'wide': lambda: ResNet(18, base_channels=64), 'dense': lambda: ResNet(18, base_channels=16)},
        2,
        (64, 96),
        form,
        1.06,
        {'pattern': 'geometric_d4'},
        composition=True,
    )


@pytest.mark.parametrize('form', ['eager', 'deployed', 'deployed / eager', 'step', 'as shipped'])
def test_ours_against_the_fastest_upstream_and_against_the_composition(form):
    upstream, composition = networks.compare('backbone', case(form), OPTIONS)
    assert upstream.name == f'small 2x3x64x96 {form}: ours / upstream' and upstream.limit == 1.06
    assert composition.name == f'small 2x3x64x96 {form}: ours / composition' and composition.limit is None
    assert upstream.subject is composition.subject and upstream.subject.median > 0
    others = dict(zip(*[iter(upstream.notes['upstream'].split())] * 2))
    assert others.pop('dense') == '1.00' and float(others['wide']) > 1
    served = dict(zip(*[iter(upstream.notes['backends'].split())] * 2))
    assert set(served) <= {'cpu', 'reference'} and sum(map(int, served.values())) == 16
    assert (upstream.notes['formats'] == 'NCHW / NCHW') >= (form == 'as shipped')


def test_gradients_that_differ_are_not_timed(monkeypatch):
    class Wrong(ICResNet):
        """One gradient is off by a thousandth where the compiled operators run."""

        def forward(self, x):
            out = super().forward(x)
            if requested() == 'reference':
                return out
            weight = self.layer1[0].conv2.weight
            return *out[:-1], out[-1] + (1e-3 * (weight - weight.detach()) * weight.detach()).sum()

    monkeypatch.setattr(networks.harness, 'time_contenders', lambda *_: pytest.fail('timed'))
    wrong = case('step')._replace(ours=lambda: Wrong(18, 'geometric_d4', base_channels=16))
    with pytest.raises(benchmark.Disagreement, match=r'small 2x3x64x96 step: ours in .*: result \d+ is off by .* norm'):
        networks.compare('backbone', wrong, OPTIONS)


def test_a_pattern_that_stands_in_for_another_is_named(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    assert find_pattern('detection/ic_resnet50_k9', 'geometric_d4') == 'geometric_d4'
    assert caplog.messages == ['detection/ic_resnet50_k9 cannot be read: geometric_d4 is timed in its place']


@pytest.mark.slow
@pytest.mark.parametrize('only', ['R50-k9 2x3x320x320 step', 'pose', 'PyConvResNet'])
def test_the_suite_backbone_times_what_is_selected(only, monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    options = benchmark.Options(repeats=1, warmup=0, scale=0.15, only=only)
    figures = list(benchmark.run(['backbone'], options))
    assert figures and all(only in figure.name and figure.suite == 'backbone' for figure in figures)


@pytest.mark.slow
def test_the_suite_models_times_every_model(monkeypatch, tmp_path):
    pytest.importorskip('mmdet.models')
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    options = benchmark.Options(repeats=1, warmup=0, scale=0.2)
    names = [figure.name for figure in benchmark.run(['models'], options)]
    assert [name.partition(': ')[0] for name in names] == [
        'RetinaNet IC-R50-k9 1x3x800x1088 as shipped',
        'RetinaNet IC-R50-k9 2x3x320x320 as shipped step',
        'Mask R-CNN IC-R50-k9 1x3x800x1088 as shipped',
        'PSPNet IC-R50-k9 1x3x512x512 as shipped',
        'bottom-up pose IC-R50-k13 1x3x640x640 as shipped',
    ]
