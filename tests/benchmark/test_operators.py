import pytest
import torch

from icconv_mm import benchmark
from icconv_mm.benchmark import operators


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))  # no published pattern at hand
    monkeypatch.setattr(operators, 'LAYERS', {3: ((9, 7), 2)})


def test_every_backend_is_timed_against_the_dense_convolution():
    figures = benchmark.run(['ops'], benchmark.Options(repeats=2, warmup=1))
    assert 'layer 3: reference / dense' in [figure.name for figure in figures]
    for figure in figures:
        assert figure.subject.repeats == 2 and 0 < figure.subject.minimum <= figure.subject.median
        assert figure.notes == {'input': '128x9x7', 'stride': 2, 'pattern': 'geometric_d4'}


def test_a_wrong_result_is_not_timed(monkeypatch):
    def wrong(x, weight, bias, pattern, stride):
        return torch.randn(1)

    monkeypatch.setattr(operators, 'inception_conv2d', wrong)
    with pytest.raises(benchmark.Disagreement, match=r'layer 3: backend .* differs from the reference'):
        benchmark.run(['ops'], benchmark.Options(repeats=1))


def test_unknown_suite():
    with pytest.raises(ValueError, match=r'no benchmark suite nothing; there are ops, fpt, pose, sepc'):
        benchmark.run(['nothing'], benchmark.Options())
