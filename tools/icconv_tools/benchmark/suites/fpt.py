"""Suite 'fpt': time and memory of the FPT neck, forward and backward, against its literal form and mmdet's FPN.

FPN is what a user replaces: the ratio to it is the price of attention. The literal form is the same neck with attention
as equations 2 to 5 of the paper say it: similarities and weights of all pairs of positions as tensors, which autograd
keeps for the backward pass.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from mmdet.models.necks import FPN
from torch import Tensor, nn

from icconv_mm.layers import feature_transformers
from icconv_mm.necks import FPT
from icconv_tools.benchmark import counters, harness
from icconv_tools.benchmark.report import Figure, memory_figure
from icconv_tools.benchmark.timing import Options, interleave

SETTINGS = {'in_channels': [256, 512, 1024, 2048], 'out_channels': 256, 'drop_prob': 0.0}
STRIDES = (4, 8, 16, 32)
TIMED = {(200, 272): 1.0, (400, 544): 0.5}  # images, and the largest ratio of the times that is wanted
REPEATS = 5  # at most: a pass of the literal form takes seconds
TOLERANCE = 1e-3  # of the largest value, in float32, gradients included


class Sizes(NamedTuple):
    """Sizes of what is measured: settings of the neck, and images."""

    neck: Mapping[str, Any] = SETTINGS
    timed: Mapping[tuple[int, int], float | None] = TIMED
    small: tuple[int, int] = (400, 544)  # the memory of both is measured; the literal form fits for this one
    large: tuple[int, int] = (800, 1088)


FULL = Sizes()  # for which the limits are


def run(options: Options, sizes: Sizes = FULL) -> list[Figure]:
    """Times of both forms, their memory, and how ours grows with the image.

    Raises:
        Disagreement: If outputs or gradients of the two forms differ.
    """
    options = replace(options, repeats=min(options.repeats, REPEATS), warmup=min(options.warmup, 1))
    return [*_times(options, sizes), *_memories(options, sizes)]


@contextmanager
def literal_form() -> Iterator[None]:
    """Within it, transformers compute attention in quadratic memory."""
    with (
        patch.object(feature_transformers, 'mixture_attention', _dot_product_form),
        patch.object(feature_transformers, 'euclidean_attention', _euclidean_form),
    ):
        yield


def _mixture(scores: Tensor, values: Tensor, mix: Tensor) -> Tensor:
    weights = (mix[..., None, None] * scores.softmax(-1)).sum(1)
    return values @ weights.transpose(-2, -1)


def _dot_product_form(queries, keys, values, mix, bias=None, scale=1.0):
    return _mixture(scale * queries.transpose(-2, -1) @ keys, values, mix)


def _euclidean_form(queries, keys, values, mix):
    distances = torch.cdist(queries.transpose(-2, -1), keys.transpose(-2, -1))
    return _mixture(-distances.square(), values, mix)


def make(size: Sequence[int], settings: Mapping[str, Any], device: str) -> tuple[FPT, list[Tensor]]:
    """The neck, its zero norms randomised, and the levels of an image."""
    generator = torch.Generator().manual_seed(0)
    neck = FPT(**settings)
    for module in neck.groundings.values():
        module.out_conv.norm.weight.data.normal_(generator=generator)
    levels = [
        torch.randn(1, channels, *(-(-side // stride) for side in size), generator=generator)
        for channels, stride in zip(settings['in_channels'], STRIDES)
    ]
    return neck.to(device), [level.to(device).requires_grad_() for level in levels]


def step(neck: nn.Module, levels: list[Tensor]) -> list[Tensor]:
    """Forward and backward: the outputs, then the gradients of levels and parameters."""
    outputs = neck(levels)
    weights = [harness.loss_weights(out) for out in outputs]
    return [*outputs, *torch.autograd.grad(outputs, [*levels, *neck.parameters()], weights)]


def _times(options: Options, sizes: Sizes) -> list[Figure]:
    figures = []
    for size, limit in sizes.timed.items():
        neck, levels = make(size, sizes.neck, options.device)

        def literal(neck=neck, levels=levels):
            with literal_form():
                return step(neck, levels)

        label = f'{_name(size)}, neck against literal form'
        harness.check_equal(label, step(neck, levels), literal(), TOLERANCE, of_maximum_or_one)
        fpn = FPN(sizes.neck['in_channels'], sizes.neck['out_channels'], num_outs=len(STRIDES)).to(options.device)
        contenders = {'lean': partial(step, neck, levels), 'literal': literal, 'FPN': partial(step, fpn, levels)}
        times = interleave(contenders, options)
        notes = {'image': _name(size), 'pass': 'forward and backward'}
        figures.append(Figure('fpt', 'neck / literal form', times['lean'], times['literal'], limit, notes))
        figures.append(Figure('fpt', "neck / mmdet's FPN", times['lean'], times['FPN'], None, notes))
    return figures


def of_maximum_or_one(one: Tensor, other: Tensor) -> float:
    """Largest deviation, relative to the largest value, or to 1: gradients before a norm are nothing but rounding."""
    return ((one - other).abs().max() / other.abs().max().clamp(min=1)).item()


def _memories(options: Options, sizes: Sizes) -> list[Figure]:
    small, large = sizes.small, sizes.large
    lean = {size: peak_memory(size, options, sizes.neck) for size in (small, large)}
    measured = peak_memory(small, options, sizes.neck, literal=True)
    literal = {small: measured, large: lean[large] + kept_by_literal_form(large)}
    figures = []
    for size, limit in ((small, None), (large, 0.1)):
        # what the literal form keeps is checked against the measurement where it can be measured
        notes = {'image': _name(size), 'literal': 'computed' if size == large else 'measured'}
        if size == small:
            notes['literal computed / measured'] = f'{(lean[size] + kept_by_literal_form(size)) / literal[size]:.2f}'
        figures.append(memory_figure('fpt', 'memory / literal form', lean[size], literal[size], limit, notes))
    notes = {'images': f'{_name(large)} / {_name(small)}'}
    figures.append(memory_figure('fpt', 'memory by image', lean[large], lean[small], 4.5, notes))
    return figures


def kept_by_literal_form(size: Sequence[int]) -> float:
    """Megabytes of float32 weights that the literal form keeps for the backward pass, on top of all else.

    Of every pair of levels each of the N softmaxes and their mixture; scores and gradients, which come and go, not
    counted.
    """
    positions = [-(-size[0] // stride) * -(-size[1] // stride) for stride in STRIDES]
    pooled = [-(-size[0] // (2 * stride)) * -(-size[1] // (2 * stride)) for stride in STRIDES]
    own = sum(3 * queries * keys for queries, keys in zip(positions, pooled))  # two softmaxes and the mixture
    cross = sum(5 * positions[fine] * sum(positions[fine + 1 :]) for fine in range(len(positions)))
    return 4e-6 * (own + cross)


def peak_memory(size: Sequence[int], options: Options, neck: Mapping[str, Any], literal: bool = False) -> float:
    """Megabytes that one forward and backward pass takes beyond the neck and its input, in a process of its own."""
    with ProcessPoolExecutor(1, get_context('spawn')) as pool:
        try:
            return pool.submit(_measure, size, options, neck, literal).result() / 1e6
        except Exception as error:
            raise RuntimeError(f'measuring the memory of a {_name(size)} image failed: {error}') from error


def _measure(size: Sequence[int], options: Options, settings: Mapping[str, Any], literal: bool) -> int:
    if options.threads:
        torch.set_num_threads(options.threads)
    neck, levels = make(size, settings, options.device)
    measure = counters.peak_memory if options.device.startswith('cuda') else _peak_resident
    with literal_form() if literal else nullcontext():
        return measure(lambda: step(neck, levels), options.device)


def _peak_resident(call: Callable[[], object], device: str) -> int:
    """Bytes that a call adds at most to this process's memory, scratch of libraries included."""
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # forgets the peak
    before = _resident('VmRSS')
    call()
    return _resident('VmHWM') - before


def _resident(field: str) -> int:
    """Bytes of this process's memory: 'VmRSS' now, 'VmHWM' at most."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f'{field}:'))


def _name(size: Sequence[int]) -> str:
    return 'x'.join(map(str, size))
