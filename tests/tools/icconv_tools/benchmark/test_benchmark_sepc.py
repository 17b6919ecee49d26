"""The benchmark suite of SEPC at a tiny size: that it runs, checks its contenders, and says what it must."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip('mmdet.models')

from icconv_mm.layers import scale_equalized_conv
from icconv_tools import benchmark
from icconv_tools.benchmark import counters
from icconv_tools.benchmark.suites import sepc as suite

OPTIONS = benchmark.Options(repeats=1, warmup=0)
SIZES = suite.Sizes(image=(257, 257), depth=18, channels=4, batches=(1,))


@pytest.mark.slow
def test_every_variant_against_the_baseline():
    figures = {figure.name: figure for figure in suite.run(OPTIONS, SIZES)}
    assert len(figures) == 12
    for name in suite.VARIANTS:
        test, train = figures[f'test: {name} / baseline'], figures[f'train: {name} / baseline']
        assert test.limit == (1.10 if name.startswith('PConv') else None) and train.limit is None
        assert test.notes['batch'] == 1 and test.notes['image'] == '257x257'
        assert ('deformable convolution' in test.notes) == name.startswith('SEPC')
    assert figures['iBN / batch norm per level'].limit == 1.15


def test_peak_memory_counts_what_is_held_at_one_time():
    kept = []

    def call():
        for _ in range(3):
            torch.zeros(1000)  # freed at once
        kept.append(torch.zeros(5000) + 1)  # both operands for a moment

    assert 40_000 <= counters.peak_memory(call, 'cpu') < 44_000


def test_integrated_batch_norm_needs_no_more_memory():
    figure = suite._norms(suite.NORM, [(2, 4, 16, 16), (2, 4, 8, 8)], OPTIONS)
    assert float(figure.notes['peak memory ratio'].split()[0]) < 1.5  # parameters' share is large at this size


def test_norms_and_sums_can_be_timed_alone():
    figures = list(suite.run(replace(OPTIONS, only='sums of levels'), SIZES))
    assert [figure.name for figure in figures] == [suite.SUMS, suite.SUMS_STEP]
    (figure,) = suite.run(replace(OPTIONS, only='its reference'), SIZES)
    assert figure.name == suite.NORM_RELU and figure.notes['finest level'] == '40x68'


def test_a_wrong_result_is_not_timed(monkeypatch):
    def wrong(x, offset, weight, stride, padding):
        return torch.zeros(len(x), len(weight), *offset.shape[2:])

    monkeypatch.setattr(scale_equalized_conv, 'padded_deform_conv2d', wrong)
    with pytest.raises(
        benchmark.Disagreement, match=r'SEPC-lite with zero offsets against PConv \+ iBN, level 1: result 0 is off by'
    ):
        list(suite.run(OPTIONS, SIZES))
