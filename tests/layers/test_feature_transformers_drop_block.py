import pytest
import torch

from icconv_mm.layers import DropBlock2d


def test_drops_whole_blocks_and_keeps_the_mean():
    x = torch.ones(4, 64, 40, 30)
    out = DropBlock2d(0.2, 3)(x)
    dropped = out == 0
    assert 0.15 < dropped.float().mean() < 0.25
    assert out.mean().item() == pytest.approx(1, abs=1e-5)
    assert out.unique().numel() == 2
    # every dropped value lies in a 3x3 square of dropped values
    squares = -torch.nn.functional.max_pool2d(-dropped.float(), 3, stride=1)
    covered = torch.nn.functional.max_pool2d(torch.nn.functional.pad(squares, [2] * 4), 3, stride=1)
    assert torch.equal(covered > 0, dropped)
    assert not torch.equal(dropped[0, 0], dropped[0, 1])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_counts_beyond_the_range_of_half_precision(dtype):
    out = DropBlock2d(0.2, 3)(torch.ones(1, 64, 64, 64, dtype=dtype))
    assert out.isfinite().all() and out.float().mean().item() == pytest.approx(1, abs=1e-2)


def test_is_the_identity_at_test_time_and_without_probability():
    x = torch.randn(1, 2, 5, 5)
    assert DropBlock2d(0.5, 3).eval()(x) is x
    assert DropBlock2d(0.0, 3)(x) is x


@pytest.mark.parametrize('size', [(1, 1), (2, 5), (1, 9)])
@pytest.mark.parametrize('drop_prob', [0.2, 0.999])
def test_small_maps(size, drop_prob):
    x = torch.randn(2, 8, *size, requires_grad=True)
    out = DropBlock2d(drop_prob, 3)(x)
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()
    assert torch.equal(x.grad == 0, out == 0)
