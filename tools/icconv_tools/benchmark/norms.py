"""Integrated batch norm and the sums of a pyramid convolution: what is timed, and what they must give."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from icconv_mm.layers import IntegratedBatchNorm
from icconv_mm.ops.steps.pyramid_sum import pyramid_sum
from icconv_tools.benchmark import harness

Call = Callable[[], list[Tensor]]


@torch.no_grad()
def check_integrated(norm: nn.Module, levels: Sequence[Tensor], tolerance: float) -> None:
    """Raise Disagreement unless a norm as it is made, in training mode, is batch norm over the whole pyramid."""
    whole = torch.cat([x.flatten(2) for x in levels], 2)[..., None]
    expected = nn.functional.batch_norm(whole, None, None, training=True).flatten(2)
    got = torch.cat([x.flatten(2) for x in norm(levels)], 2)
    label = 'integrated batch norm against batch norm over the concatenation'
    harness.check_equal(label, [got], [expected], tolerance)


def norm_steps(levels: Sequence[Tensor]) -> tuple[nn.Module, Call, Call]:
    """Integrated batch norm, its training step on these levels, and that of one batch norm per level."""
    channels, device = levels[0].shape[1], levels[0].device
    grads = [torch.randn_like(level) for level in levels]
    integrated = IntegratedBatchNorm(channels).to(device)
    single = nn.ModuleList(nn.BatchNorm2d(channels) for _ in levels).to(device)

    def per_level() -> list[Tensor]:
        return [norm(x) for norm, x in zip(single, levels)]

    step = harness.step(lambda: integrated(levels), [*levels, *integrated.parameters()], grads)
    return integrated, step, harness.step(per_level, [*levels, *single.parameters()], grads)


def sum_calls(own: Sequence[Tensor], coarser: Sequence[Tensor], finer: Sequence[Tensor]) -> tuple[Call, Call]:
    """What a pyramid convolution adds up at each level, forward, and with gradients."""

    def call() -> list[Tensor]:
        return [pyramid_sum(*each) for each in zip(own, coarser[1:], [None, *finer[1:]])]

    grads = [torch.randn_like(level) for level in own[:-1]]
    return call, harness.step(call, [*own[:-1], *coarser[1:], *finer[1:-1]], grads)
