"""Whole networks, with small ones in their place."""

import shutil

import pytest
import torch

from icconv_mm.backbones import ICResNet, ResNet
from icconv_mm.ops import use_backend
from icconv_mm.ops.dispatch.backend import requested
from icconv_tools import benchmark
from icconv_tools.benchmark import networks
from icconv_tools.benchmark.suites import backbone

OPTIONS = benchmark.Options(repeats=1, warmup=0)


def case(form: str, limit: float | None = 1.06, **settings) -> networks.Case:
    return networks.Case(
        'small',
        lambda: ICResNet(18, 'geometric_d4', base_channels=16),
        {'wide': lambda: ResNet(18, base_channels=64), 'dense': lambda: ResNet(18, base_channels=16)},
        2,
        (64, 96),
        form,
        limit,
        {'pattern': 'geometric_d4'},
        **{'composition': True, **settings},
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
    assert upstream.notes['share of matmul peak'].count('%') == 2
    assert (upstream.notes['formats'] == 'NCHW / NCHW') >= (form == 'as shipped')


def test_memory_has_a_figure_of_its_own():
    *_, memory = networks.compare('backbone', case('eager', memory=1.03, composition=False), OPTIONS)
    assert memory.name == 'small 2x3x64x96 eager peak memory: ours / upstream'
    assert memory.unit == 'MB' and memory.limit == 1.03 and 0 < memory.ratio < 2


def test_only_upstream_folds_its_norms_where_ours_is_deployed(monkeypatch):
    folded = []
    monkeypatch.setattr(networks, 'fuse_conv_bn', lambda network: folded.append(network) or network)
    networks.compare('backbone', case('deployed / eager'), OPTIONS)
    assert not folded
    networks.compare('backbone', case('deployed'), OPTIONS)
    assert folded and all(type(network) is ResNet for network in folded)


def test_a_scaled_picture_has_no_limit():
    options = benchmark.Options(repeats=1, warmup=0, scale=0.5)
    figure, _ = networks.compare('backbone', case('eager'), options)
    assert figure.limit is None and figure.notes['scaled to'] == '32x48'


def test_the_composition_is_the_reference():
    network = ICResNet(18, 'geometric_d4', base_channels=16).eval()

    def call():
        with torch.no_grad():
            return network(torch.randn(1, 3, 32, 32))

    with use_backend('reference'):
        assert networks.count_backends(call) == {'reference': 16}


def test_a_deployed_network_that_differs_is_not_timed(monkeypatch):
    right = networks.deploy

    def wrong(network):
        form = right(network)
        form.layer3[0].conv2.bias.data += 0.1
        return form

    monkeypatch.setattr(networks, 'deploy', wrong)
    monkeypatch.setattr(networks.harness, 'time_contenders', lambda *_: pytest.fail('timed'))
    with pytest.raises(benchmark.Disagreement, match=r'small 2x3x64x96 deployed: .* in .*: result 2 is off by'):
        networks.compare('backbone', case('deployed'), OPTIONS)


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


def test_the_cases_and_their_limits(monkeypatch, tmp_path, published_patterns):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    assert {(c.limit, c.memory) for c in backbone.cases(OPTIONS) if c.name.startswith('IC')} == {(None, None)}
    shutil.copytree(published_patterns, tmp_path / 'patterns')
    limits = {c.label: c.limit for c in backbone.cases(OPTIONS)}
    limits.pop('IC-R50-k9 1x3x800x1088 bfloat16 eager', None)  # where the processor has it
    assert limits == {
        'ResNet-50 1x3x800x1088 eager': 1.01,
        'ResNet-50 1x3x224x224 eager': 1.02,
        'ResNet-50 2x3x320x320 step': 1.02,
        'IC-R50-k9 1x3x800x1088 eager': 1.04,
        'IC-R50-k9 1x3x800x1088 deployed': 1.04,
        'IC-R50-k9 1x3x800x1088 deployed / eager': 0.97,
        'IC-R50-k9 1x3x224x224 eager': 1.04,
        'IC-R50-k9 1x3x224x224 deployed': None,
        'IC-R50-k9 2x3x320x320 step': 1.06,
        'IC-R50-k9 with_cp=norms 2x3x320x320 step': 1.06,
        'IC-R50-k9 1x3x800x1088 as shipped': 0.70,
        'IC-R50-k9 2x3x320x320 as shipped step': 0.85,
        'IC-R50-k13 pose 1x3x640x640 eager': 1.06,
        'IC-R101-k9 1x3x800x1088 eager': 1.05,
        'PyConvResNet-50 1x3x800x1088 eager': 1.05,
        'PyConvResNet-50 2x3x320x320 step': 1.10,
    }
    on_gpu = {c.label: c.limit for c in backbone.cases(benchmark.Options(device='cuda'))}
    assert on_gpu['IC-R50-k9 2x3x800x1344 eager'] == 1.2 and on_gpu['IC-R50-k9 2x3x800x1344 step'] == 1.3


def test_upstream_is_what_users_have():
    networks = {c.label: c.upstream for c in backbone.cases(OPTIONS)}
    plain = networks['IC-R50-k9 1x3x800x1088 eager']
    assert {name: type(make()).__module__.split('.')[0] for name, make in plain.items()} == {
        'torchvision': 'icconv_tools',
        'mmdet': 'mmdet',
    }
    x = torch.randn(1, 3, 64, 64)
    assert [[y.shape for y in make()(x)] for make in plain.values()] == [
        [(1, 64 * 4 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(4)]
    ] * 2
    (shipped,) = networks['IC-R50-k9 1x3x800x1088 as shipped'].values()
    assert shipped().frozen_stages == 1 and shipped().norm_eval


@pytest.mark.slow
@pytest.mark.parametrize('only', ['R50-k9 1x3x224x224', 'R50-k9 2x3x320x320 step', 'pose', 'R101', 'PyConvResNet'])
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
