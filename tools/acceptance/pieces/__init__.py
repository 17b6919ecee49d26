"""The pieces, most important first, and their measurements in that order."""

import importlib
from collections.abc import Iterator, Sequence

from acceptance.bench import Bench, Measurement
from icconv_mm.errors import InputError

PIECES = ('ceilings', 'parity', 'layers', 'networks', 'pyconv', 'table', 'necks', 'pose', 'training')


def measurements(names: Sequence[str], bench: Bench) -> Iterator[Measurement]:
    """The measurements of the pieces of these names; a piece may ask the record what was found before it."""
    for name in names:
        yield from importlib.import_module(f'acceptance.pieces.{name}').measurements(bench)


def of_names(names: Sequence[str] | None) -> list[str]:
    """The pieces of these names, or all, in their order.

    Raises:
        InputError: There is no such piece.
    """
    if unknown := [name for name in names or () if name not in PIECES]:
        raise InputError(f'--piece: no piece {", ".join(unknown)}; there are {", ".join(PIECES)}')
    return [name for name in PIECES if not names or name in names]
