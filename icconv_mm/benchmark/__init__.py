"""Benchmarks that compare contenders with equal results, interleaved in one process.

A suite is a module with ``run(options)``, which gives figures one by one or all in the end. It checks that contenders
agree before it times them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

import torch

from .picture import write_picture
from .report import Figure, print_figures, write_json
from .timing import Options, Timing, interleave

__all__ = [
    'SUITES',
    'Disagreement',
    'Figure',
    'Options',
    'Timing',
    'interleave',
    'print_figures',
    'run',
    'write_json',
    'write_picture',
]

# Suite -> the module that has it, imported when it is run: a suite may need a task library.
SUITES = {
    'layers': 'icconv_mm.benchmark.layers',
    'backbone': 'icconv_mm.benchmark.backbone',
    'detector': 'icconv_mm.tasks.detection.detector_benchmark',
    'fpt': 'icconv_mm.benchmark.fpt',
    'pose': 'icconv_mm.tasks.pose.benchmark',
    'sepc': 'icconv_mm.tasks.detection.benchmark',
}


class Disagreement(RuntimeError):
    """Contenders gave different results, so that timing them would compare nothing."""


def run(names: Sequence[str], options: Options) -> Iterator[Figure]:
    """Run suites one after the other; figures come as they are measured.

    Args:
        names: Keys of :data:`SUITES`.
        options: How to time.

    Raises:
        ValueError: For a suite that does not exist.
        Disagreement: If contenders of a suite disagree.
    """
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise ValueError(f'no benchmark suite {", ".join(unknown)}; there are {", ".join(SUITES)}')
    if options.threads:
        torch.set_num_threads(options.threads)
    return (figure for name in names for figure in importlib.import_module(SUITES[name]).run(options))
