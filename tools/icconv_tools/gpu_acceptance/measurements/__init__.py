"""The pieces, most important first, and their measurements in that order."""

import importlib
from collections.abc import Iterator, Sequence

from icconv_mm.errors import require_known
from icconv_tools.gpu_acceptance.bench import Bench, Measurement

PIECES = ('ceilings', 'parity', 'layers', 'networks', 'pyconv', 'table', 'necks', 'pose', 'training')


def measurements(names: Sequence[str], bench: Bench) -> Iterator[Measurement]:
    """The measurements of the pieces of these names; a piece may look at what was found before it."""
    for name in names:
        yield from importlib.import_module(f'icconv_tools.gpu_acceptance.measurements.{name}').measurements(bench)


def chosen_pieces(names: Sequence[str] | None) -> list[str]:
    """The pieces of these names, or all, in their order.

    Raises:
        InputError: There is no such piece.
    """
    wanted = require_known(names or PIECES, PIECES, '--piece: no piece')
    return [name for name in PIECES if name in wanted]
