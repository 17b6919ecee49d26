"""What the GPU can do at best: products, copies; and what a call of an operator costs the processor."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial

import torch

from icconv_tools.benchmark import harness
from icconv_tools.benchmark.suites import overhead
from icconv_tools.gpu_acceptance.bench import Bench, Measurement

COPIED = 1 << 30  # bytes


def measurements(bench: Bench) -> Iterator[Measurement]:
    for dtype in ('bfloat16', 'float16', 'float32'):
        yield Measurement(f'ceilings/matmul {dtype}', partial(_matmul, dtype))
    yield Measurement('ceilings/copy', _copy)
    yield Measurement('ceilings/overhead', _overhead)


def _matmul(dtype: str, bench: Bench) -> dict:
    """TFLOP/s of a large square product; float32 as TF32 on a GPU."""
    product, flops = harness.matmul(replace(bench.options, dtype=dtype))
    times = bench.time({'matmul': product}, calls=2)
    speed = flops / times['matmul']['GPU'] / 1e6
    return {'times': times, 'TFLOP/s': round(speed, 2), 'summary': f'{speed:.1f} TFLOP/s'}


def _copy(bench: Bench) -> dict:
    """Bytes read and written in a second by a copy that no cache holds."""
    (count,) = bench.options.scaled(COPIED)
    source = torch.zeros(count, dtype=torch.uint8, device=bench.options.device)
    target = torch.empty_like(source)
    times = bench.time({'copy': lambda: target.copy_(source)}, calls=2)
    speed = 2 * count / times['copy']['GPU'] / 1e6
    return {'times': times, 'TB/s': round(speed, 3), 'summary': f'{speed:.2f} TB/s'}


def _overhead(bench: Bench) -> dict:
    """What the operators add to a call of torch's convolution, in microseconds of the processor."""
    figures = list(overhead.run(bench.options))
    return {
        'figures': [asdict(figure) for figure in figures],
        'summary': ', '.join(f'{figure.name} {figure.notes["on top"]}' for figure in figures),
    }
