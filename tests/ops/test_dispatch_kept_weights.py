"""Inference packs a weight once; whatever changes it afterwards is seen, by every operator that keeps weights."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from icconv_mm.deployment.deploy import PackedConv2d
from icconv_mm.layers.fast_eval import convolve
from icconv_mm.ops import backends, forget_packed_weights, inception_conv2d, pyconv2d, use_backend

pytestmark = pytest.mark.skipif(not backends()['cpu'], reason='not compiled')

SHAPE = (6, 8, 3, 3)
X, OTHER = torch.randn(2, 8, 7, 5).contiguous(memory_format=torch.channels_last), torch.randn(4, 8, 5, 5)


def convolution(weight: nn.Parameter) -> nn.Conv2d:
    conv = nn.Conv2d(8, 6, 3, padding=1, bias=False)
    conv.weight = weight
    return conv


OPERATORS = {
    'inception': lambda weight: partial(inception_conv2d, X, weight, None, [(4, 1, 1), (2, 2, 2)]),
    'pyramid': lambda weight: partial(pyconv2d, X, [weight, OTHER], None, [1, 1]),
    'plain': lambda weight: partial(convolve, X, convolution(weight)),
    'deployed': lambda weight: partial(PackedConv2d.of(convolution(weight)), X),
}


def numbers(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().numpy()


WAYS = {
    'nothing': lambda weight: None,
    'product': lambda weight: weight.mul_(2),
    'copy': lambda weight: weight.copy_(torch.randn(SHAPE)),
    'view': lambda weight: weight[1:3].add_(0.5),
    'new memory': lambda weight: setattr(weight, 'data', torch.randn(SHAPE)),
    # around the counter of changes, as hooks do that average weights, and from another process
    'data': lambda weight: weight.data.zero_(),
    'three of the data': lambda weight: weight.data[5, 3, 2].add_(1),
    'numpy': lambda weight: np.multiply(numbers(weight), 1.1, out=numbers(weight)),
    # signs, which a fingerprint of sums misses
    'every second channel': lambda weight: weight.data[:, 1::2].neg_(),
    'through numpy': lambda weight: np.negative(numbers(weight)[:, ::2], out=numbers(weight)[:, ::2]),
    'two signs': lambda weight: weight.data.view(-1)[5:38:32].neg_(),
    'two other signs': lambda weight: weight.data.view(-1)[4:37:32].neg_(),
    'an exchange': lambda weight: weight.data.view(-1)[:2].copy_(weight.data.view(-1)[:2].flip(0)),
    'all signs': lambda weight: weight.data.neg_(),
}
if hasattr(torch.utils, 'swap_tensors'):  # since torch 2.3
    WAYS['exchange of tensors'] = lambda weight: torch.utils.swap_tensors(
        weight, nn.Parameter(torch.randn(SHAPE), weight.requires_grad)
    )


@pytest.mark.parametrize('operator', OPERATORS)
@pytest.mark.parametrize('way', WAYS)
@pytest.mark.parametrize('kind', ['frozen', 'learning', 'inference'])
def test_changes_are_seen(operator, way, kind):
    forget_packed_weights()
    for _ in range(10):
        with torch.inference_mode(kind == 'inference'), torch.no_grad():
            weight = nn.Parameter(torch.randn(SHAPE), kind == 'learning')
            run = OPERATORS[operator](weight)
            for change in (WAYS['nothing'], WAYS[way]):
                change(weight)
                for _ in range(3):  # packed, packed and kept, kept
                    got = run()
                    with use_backend('reference'):
                        torch.testing.assert_close(got, run(), rtol=1e-4, atol=1e-5)
    assert forget_packed_weights()
