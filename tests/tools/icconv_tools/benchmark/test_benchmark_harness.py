"""Agreement before timing, and the better memory format of each contender."""

import pytest
import torch

from icconv_tools.benchmark import Disagreement, Options, Timing, harness


def call(value, size=3):
    return lambda: [torch.full((size,), value)]


def contenders(**changes):
    found = {name: {'NCHW': call(1.0), 'channels_last': call(1.0)} for name in ('dense', 'ours', 'composition')}
    found['dense'] = {'NCHW': call(2.0), 'channels_last': call(2.0)}  # computes something else
    for name, calls in changes.items():
        found[name].update(calls)
    return found


def check(**changes):
    harness.check_agreement('it', contenders(**changes), ('composition', 'ours'), 1e-4)


@pytest.mark.parametrize('name', ['dense', 'ours', 'composition'])
@pytest.mark.parametrize('value', [1.001, float('nan'), float('inf')])
def test_every_contender_is_checked_in_every_format(name, value):
    check()
    with pytest.raises(Disagreement, match=f'it: {name} in channels_last: result 0 is off by'):
        check(**{name: {'channels_last': call(value)}})


def test_a_result_of_another_shape_disagrees():
    with pytest.raises(Disagreement, match='it: ours in NCHW: result 0 is off by nan'):
        check(ours={'NCHW': call(1.0, 4)})


def test_less_than_the_tolerance_agrees():
    check(ours={'NCHW': call(1.00001)})


def test_a_deviation_of_few_values_is_little_of_the_norm():
    few = torch.zeros(1000)
    few[0] = 0.1
    held, deviations = torch.ones(1000), (harness.of_maximum, harness.of_norm)
    assert [f'{deviation(held + few, held):.4f}' for deviation in deviations] == ['0.1000', '0.0032']
    calls = {'ours': {'NCHW': lambda: [held], 'channels_last': lambda: [held + few]}}
    harness.check_agreement('it', calls, ['ours'], 1e-2, harness.of_norm)
    with pytest.raises(Disagreement, match=r'off by 1\.0e-01 of the maximum'):
        harness.check_agreement('it', calls, ['ours'], 1e-2)


def test_the_better_format_counts(monkeypatch):
    medians = {('a', 'NCHW'): 4.0, ('a', 'channels_last'): 2.0, ('b', 'NCHW'): 1.0, ('b', 'channels_last'): 3.0}
    side = 32

    def interleave(calls, options):
        assert set(calls) == {*medians, 'matmul'}
        return {name: Timing(0.5, medians.get(name, 0.5), 1) for name in calls}

    monkeypatch.setattr(harness, 'interleave', interleave)
    monkeypatch.setattr(harness, 'MATMUL', {'cpu': side})
    a, b = torch.randn(2, 4, 8), torch.randn(2, 8, 4)
    product = {fmt: lambda: [a @ b] for fmt in harness.FORMATS}
    results = harness.time_contenders({'a': product, 'b': product}, Options())
    assert [results[name].format for name in 'ab'] == ['channels_last', 'NCHW']
    assert results['a'].flops == 2 * 2 * 4 * 8 * 4
    assert results['a'].share == pytest.approx((results['a'].flops / 2.0) / (2 * side**3 / 0.5))


def test_the_product_is_of_the_dtype_that_is_timed():
    product, flops = harness.matmul(Options(dtype='bfloat16', scale=0.01))
    assert product().dtype == torch.bfloat16 and product().shape == (15, 15) and flops == 2 * 15**3
    assert Options().tensor_dtype == torch.float32 and Options(device='cuda').tensor_dtype == torch.bfloat16


def test_tf32_is_held_to_the_digits_that_it_has(monkeypatch):
    on_gpu = Options(device='cuda', dtype='float32')
    tolerances = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
    for allowed, expected in ((True, 5e-3), (False, 1e-4)):
        monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', allowed)
        assert harness.tolerance(on_gpu, tolerances) == expected
        assert harness.tolerance(Options(dtype='float32'), tolerances) == 1e-4
        assert harness.tolerance(Options(device='cuda'), tolerances) == 2e-2


def test_the_product_is_rounded_as_convolutions_are(monkeypatch):
    precisions = []
    monkeypatch.setattr(harness, 'uses_tf32', lambda options: True)
    monkeypatch.setattr(
        torch.Tensor, '__matmul__', lambda a, b: precisions.append(torch.get_float32_matmul_precision())
    )
    product, _ = harness.matmul(Options(scale=0.01))
    product()
    assert precisions == ['high'] and torch.get_float32_matmul_precision() == 'highest'
