"""Benchmarks that compare contenders with equal results, interleaved in one process.

A suite is a module with ``run(options)``, which gives figures one by one or all in the end. It checks that contenders
agree before it times them.
"""

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType

import torch

from icconv_mm.arguments import require_known
from icconv_mm.errors import naming
from icconv_workshop.benchmark.harness import Disagreement
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.timing import Options, Timing, interleave

__all__ = ['SUITES', 'Disagreement', 'Figure', 'Options', 'Timing', 'interleave', 'run', 'suite']

# Modules of the package suites, imported when they are run: a suite may need a task library.
SUITES = ('layers', 'overhead', 'backbone', 'models', 'export', 'blocks', 'reading')


def run(names: Sequence[str], options: Options) -> Iterator[Figure]:
    """Run suites one after the other; figures come as they are measured.

    Args:
        names: Names out of :data:`SUITES`.
        options: Options of the timing.

    Raises:
        InputError: For a suite that does not exist, or whose task library is not installed.
        Disagreement: If contenders of a suite disagree.
    """
    names = require_known(names, SUITES, 'no benchmark suite')
    if options.threads:
        torch.set_num_threads(options.threads)
    return (figure for name in names for figure in suite(name).run(options))


def suite(name: str) -> ModuleType:
    """The module of a suite.

    Raises:
        InputError: Its task library is not installed.
    """
    with naming(f'suite {name}', ImportError):  # of a task library
        return importlib.import_module(f'icconv_workshop.benchmark.suites.{name}')
