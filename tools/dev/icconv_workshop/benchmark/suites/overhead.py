"""Suite 'overhead': what a call of our operators costs the processor beyond one of torch's convolution.

Batches are empty, so that no kernel has anything to compute: what is left is Python, checks, the choice of a backend,
dispatch and autograd, of both alike. Times are of a thousand calls.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from icconv_mm.layers import ICConv2d, ICConv2dReLU, PyConv2d
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.timing import Options, Timing, interleave

CALLS, CHANNELS = 1000, 64
LIMIT = 5.0  # microseconds on top of torch's call
# 12 dilations, as a layer of a published pattern has
PATTERN = ((20, 1, 1), *((4, h, w) for h in (1, 2, 3) for w in (1, 2, 3, 4) if (h, w) != (1, 1)))


def run(options: Options) -> Iterator[Figure]:
    """Forward passes with and without a gradient, under autocast, deployed; and training steps."""
    calls = max(2, round(CALLS * options.scale))
    for name, ours, dense in contenders(options):
        times = interleave({'ours': partial(_many, ours, calls), 'dense': partial(_many, dense, calls)}, options)
        subject, baseline = (_each(times[which], calls) for which in ('ours', 'dense'))
        more = 1e6 * (subject.median - baseline.median)
        verdict = f' (limit {LIMIT:.0f} {"kept" if more <= LIMIT else "MISSED"})' if 'step' not in name else ''
        yield Figure('overhead', name, subject, baseline, notes={'on top': f'{more:.1f} us{verdict}'})


def contenders(options: Options) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """What is called, our call and torch's."""
    with torch.device(options.device):
        dense = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        inception = ICConv2d(CHANNELS, CHANNELS, PATTERN)
        pyramidal = PyConv2d(CHANNELS, [CHANNELS // 2] * 2, [3, 5], [1, 4])
        x = torch.empty(0, CHANNELS, 8, 8)
    frozen = ICConv2dReLU.of(copy.deepcopy(inception).requires_grad_(False))
    kind = torch.device(options.device).type

    def autocast(layer: nn.Module) -> Callable[[], Tensor]:
        return torch.autocast(kind, dtype=torch.bfloat16)(lambda: layer(x))

    no_grad = torch.no_grad()
    for name, layer in (('ICConv2d', inception), ('PyConv2d', pyramidal)):
        yield f'{name}, forward without gradient', no_grad(partial(layer, x)), no_grad(partial(dense, x))
        yield f'{name}, forward', partial(layer, x), partial(dense, x)
        yield f'{name}, forward under autocast', autocast(layer), autocast(dense)
        yield f'{name}, step', partial(_step, layer, x), partial(_step, dense, x)
    relu = nn.Sequential(dense, nn.ReLU())
    yield 'ICConv2dReLU, forward without gradient', no_grad(partial(frozen, x)), no_grad(partial(relu, x))


def _step(layer: nn.Module, x: Tensor) -> None:
    x = x.detach().requires_grad_()
    out = layer(x)
    torch.autograd.grad(out, [x, *layer.parameters()], torch.empty_like(out))


def _many(call: Callable[[], object], count: int) -> None:
    for _ in range(count):
        call()


def _each(timing: Timing, count: int) -> Timing:
    return replace(timing, minimum=timing.minimum / count, median=timing.median / count)
