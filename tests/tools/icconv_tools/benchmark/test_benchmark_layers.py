"""The suite of single layers, at a tiny size."""

import shutil

import pytest

from icconv_mm.layers import ICConv2d
from icconv_mm.ops import inception_conv2d
from icconv_mm.ops.dispatch import backend
from icconv_tools import benchmark
from icconv_tools.benchmark.suites import layers

TINY = {'repeats': 1, 'warmup': 0, 'scale': 0.03}


@pytest.fixture(autouse=True)
def no_published_pattern(monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    return tmp_path


@pytest.mark.parametrize('only', ['layer 3 ', 'PyConv stage 2'])
def test_ours_against_dense_and_against_the_composition(only):
    figures = {figure.name: figure for figure in benchmark.run(['layers'], benchmark.Options(**TINY, only=only))}
    name = only.strip()
    assert list(figures) == [
        f'{name} {kind}: ours / {baseline}' for kind in ('forward', 'step') for baseline in ('dense', 'composition')
    ]
    for figure in figures.values():
        assert 0 < figure.subject.minimum <= figure.subject.median and figure.subject.repeats == 1
        assert figure.limit is None  # of the full size
        ours, other = figure.notes['formats'].split(' / ')
        assert {ours, other} <= {'NCHW', 'channels_last'}
        assert figure.notes['share of matmul peak'].count('%') == 2
    notes = figures[f'{name} forward: ours / dense'].notes
    if only == 'layer 3 ':
        assert notes['pattern'] == 'geometric_d4' and notes['stride'] == 2 and notes['dilations'] == 4
        assert notes['input'] == '1x128x6x9' and notes['backend'] in ('cpu', 'reference')
    else:
        assert notes['kernels'] == '3/5/7' and notes['groups'] == '1/4/8' and notes['input'] == '1x128x3x5'


def test_layers_have_the_shapes_of_a_full_image():
    found = list(layers.inception_layers(benchmark.Options()))
    assert [layer.shape[1:] for layer in found[:4]] == [(64, 200, 272)] * 3 + [(128, 200, 272)]
    assert [layer.stride for layer in found] == [1, 1, 1, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1]
    assert found[-1].shape == (1, 512, 25, 34)
    assert [layer.shape for layer in layers.pyconv_layers(benchmark.Options())] == [
        (1, 64, 200, 272),
        (1, 128, 100, 136),
        (1, 256, 50, 68),
    ]


def test_limits_are_those_of_the_published_pattern(no_published_pattern, published_patterns):
    options = benchmark.Options()
    assert not any(layer.limits for layer in layers.inception_layers(options))
    shutil.copytree(published_patterns, no_published_pattern / 'patterns')
    published = list(layers.inception_layers(options))
    assert len(published) == 16 and all(layer.limits == {'dense': 1.25} for layer in published)
    assert published[1].notes == {'pattern': 'detection/ic_resnet50_k9', 'dilations': 12}
    assert [layer.limits for layer in layers.pyconv_layers(options)] == [
        {'dense': 1.2, 'composition': 0.25},
        {'dense': 1.1},
        {'dense': 1.1},
    ]


def test_the_sum_needs_all_layers(monkeypatch):
    timing = benchmark.Timing(1.0, 2.0, 3)

    def compare(layer, kind, options):
        return [benchmark.Figure('layers', f'{layer.name} {kind}: ours / dense', timing, timing, notes=layer.notes)]

    monkeypatch.setattr(layers, '_compare', compare)
    figures = list(benchmark.run(['layers'], benchmark.Options(**TINY)))
    total = next(figure for figure in figures if figure.name == 'all layers forward: ours / dense')
    assert (total.subject.minimum, total.subject.median, total.notes['sum of']) == (16, 32, 16)
    assert not any('all layers' in figure.name for figure in layers.run(benchmark.Options(**TINY, only='layer 3')))


def wrong_result(right):
    def call(*args):
        return right(*args) * (1 + 1e-2 * (backend.requested() == 'auto'))

    return call


def wrong_gradient(right):
    def call(*args):
        y = right(*args)
        return y + (y - y.detach()) if backend.requested() == 'auto' else y

    return call


@pytest.mark.parametrize(
    ('wrong', 'kind', 'number'), [(wrong_result, 'forward', 0), (wrong_gradient, 'step', 1)], ids=['result', 'gradient']
)
def test_what_differs_is_not_timed(monkeypatch, wrong, kind, number):
    monkeypatch.setattr(ICConv2d, 'operator', staticmethod(wrong(inception_conv2d)))
    monkeypatch.setattr(layers.harness, 'time_contenders', lambda *_: pytest.fail('timed'))
    message = rf'layer 3 {kind}: ours in NCHW: result {number} is off by .* of the maximum, allowed 1e-04'
    with pytest.raises(benchmark.Disagreement, match=message):
        list(benchmark.run(['layers'], benchmark.Options(**TINY, only=f'layer 3 {kind}')))


def test_an_unknown_suite_is_refused():
    with pytest.raises(ValueError, match=r'no benchmark suite ops; there are: layers, .*, multitask, overhead'):
        benchmark.run(['ops'], benchmark.Options())
