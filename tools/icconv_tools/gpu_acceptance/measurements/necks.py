"""Integrated batch norm, the sums of a pyramid convolution, SEPC's detectors, and FPT."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

import torch

from icconv_mm.ops import use_backend
from icconv_tools import benchmark
from icconv_tools.benchmark import harness
from icconv_tools.benchmark.norms import check_integrated, norm_steps, sum_calls
from icconv_tools.gpu_acceptance.bench import Bench, Measurement, against

LEVELS = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
CHANNELS, BATCHES = 256, (1, 4)
NORM_LIMIT = 1.10  # against a batch norm for each level

OF_LIBRARIES = ('mmengine', 'mmcv', 'mmdet')
NORM = {'type': 'GN', 'num_groups': 4}
NECK = {'in_channels': [8] * 4, 'out_channels': 16, 'drop_prob': 0.0, 'norm_cfg': NORM}
# suite -> its sizes in a dry run
DRY_SIZES = {
    'sepc': {'image': (257, 257), 'depth': 18, 'channels': 4, 'batches': (1,)},
    'fpt': {'neck': NECK, 'timed': {(64, 96): None}, 'small': (32, 64), 'large': (64, 128)},
}


def measurements(bench: Bench) -> Iterator[Measurement]:
    for batch in BATCHES[:1] if bench.dry else BATCHES:
        yield Measurement(f'necks/iBN, {batch} images', partial(_norms, batch), 30)
        yield Measurement(f'necks/sums of levels, {batch} images', partial(_sums, batch), 30)
    yield Measurement('necks/SEPC', partial(suite_figures, 'sepc'), 150, OF_LIBRARIES)
    yield Measurement('necks/FPT', partial(suite_figures, 'fpt'), 150)


def _norms(batch: int, bench: Bench) -> dict:
    """Forward and backward of integrated batch norm, by backend, against a batch norm for each level."""
    levels = _maps(batch, bench)
    integrated, step, per_level = norm_steps(levels)
    calls = {'per level': per_level}
    for name in ('reference', 'cpu' if bench.dry else 'cuda'):
        with use_backend(name):
            check_integrated(integrated, levels, harness.tolerance(bench.options))
        calls[name] = use_backend(name)(step)
    times = bench.time(calls, calls=1, eager=['reference'])
    limits = {} if bench.dry else {'wall': NORM_LIMIT}
    comparisons = [against(times, name, 'per level', limits) for name in calls if name != 'per level']
    channels, sizes = _shapes(bench)
    return {'times': times, 'comparisons': comparisons, 'batch': batch, 'levels': sizes, 'channels': channels}


def _shapes(bench: Bench) -> tuple[int, list[tuple[int, ...]]]:
    """Channels and sizes of the levels."""
    sizes = [tuple(max(2, side) for side in bench.options.scaled(*size)) for size in LEVELS]
    return max(4, *bench.options.scaled(CHANNELS)), sizes


def _maps(batch: int, bench: Bench) -> list[torch.Tensor]:
    options, channels, sizes = bench.options, *_shapes(bench)
    return [
        torch.randn(batch, channels, *size, device=options.device, dtype=options.tensor_dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for size in sizes
    ]


def _sums(batch: int, bench: Bench) -> dict:
    """What a pyramid convolution adds up, forward and backward, by backend, against torch's steps."""
    _, step = sum_calls(*(_maps(batch, bench) for _ in range(3)))
    calls = {}
    for name in ('reference', 'cpu' if bench.dry else 'cuda'):
        calls[name] = use_backend(name)(step)
        label = f'sums of levels on the backend {name}'
        harness.check_equal(label, calls[name](), calls['reference'](), harness.tolerance(bench.options))
    times = bench.time(calls, calls=1)
    comparisons = [against(times, name, 'reference', {}) for name in calls if name != 'reference']
    return {'times': times, 'comparisons': comparisons, 'batch': batch}


def suite_figures(name: str, bench: Bench) -> dict:
    """The figures of a suite of tools/benchmark.py."""
    module = benchmark.suite(name)
    sizes = [module.Sizes(**DRY_SIZES[name])] if bench.dry and name in DRY_SIZES else []
    options = replace(bench.options, dtype='float32')  # as the suites' limits and tolerances are
    figures = list(module.run(options, *sizes))
    rows = [{**asdict(figure), 'ratio': figure.ratio, 'met': figure.met} for figure in figures]
    summary = ', '.join(f'{figure.name} {figure.ratio:.2f}' for figure in figures)
    return {'figures': rows, 'summary': summary}
