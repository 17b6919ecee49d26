"""Checks of arguments that name the argument in their error. For this package and its tools."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from icconv_mm.errors import ArgumentError, InputError


def require_known(names: Iterable[str], supported: Collection[str], what: str) -> list[str]:
    """Returns the names if all are known. Internal; ``what`` begins the message: ``'--tasks: no task'``.

    Raises:
        InputError: A name is not known; the message lists the known ones.
    """
    names = list(names)
    if unknown := [name for name in names if name not in supported]:
        raise InputError(f'{what} {", ".join(unknown)}; there are: {", ".join(supported)}')
    return names


def check_positive(**numbers: Any) -> None:
    """Raises InputError, which names the argument, unless each value is an integer above 0."""
    _require(numbers, _is_positive, 'a positive integer')


def check_not_negative(**numbers: Any) -> None:
    """Raises InputError, which names the argument, unless each value is an integer of 0 or more."""
    _require(numbers, lambda given: isinstance(given, Integral) and given >= 0, '0 or more')


def check_probability(**numbers: Any) -> None:
    """Raises InputError, which names the argument, unless each value is a number of at least 0 and below 1."""
    _require(numbers, lambda given: isinstance(given, Real) and 0 <= given < 1, 'at least 0 and below 1')


def check_scores(**scores: float | None) -> None:
    """Raises ArgumentError, which names the argument, unless each value is None or a number from 0 to 1."""
    for name, given in scores.items():
        if given is not None and not (isinstance(given, Real) and 0 <= given <= 1):
            raise ArgumentError(name, f'expected a score from 0 to 1, got {given}')


def check_all_positive(**lists: Any) -> None:
    """Raises InputError, which names the argument, unless each value is a non-empty list of integers above 0."""
    what = 'a list of positive integers'
    _require(lists, lambda given: isinstance(given, Sequence) and given and all(map(_is_positive, given)), what)


def without_none(**arguments: Any) -> dict[str, Any]:
    """Returns the arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def _is_positive(number: Any) -> bool:
    return isinstance(number, Integral) and number > 0


def _require(arguments: Mapping[str, Any], is_valid: Callable[[Any], bool], what: str) -> None:
    for name, given in arguments.items():
        if not is_valid(given):
            raise InputError(f'{name} must be {what}, got {given!r}')
