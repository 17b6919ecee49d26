"""Checks of arguments that name the argument in their error. For this package and its tools."""

from collections.abc import Collection, Iterable, Sequence
from numbers import Integral, Real
from typing import Any

from icconv_mm.errors import InputError


def require_known(names: Iterable[str], known: Collection[str], what: str) -> list[str]:
    """Returns the names if all are known. Internal.

    Args:
        names: The given names.
        known: All known names.
        what: Beginning of the message: ``'--tasks: no task'``.

    Raises:
        InputError: A name is not known; the message lists the known ones.
    """
    names = list(names)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f'{what} {", ".join(unknown)}; there are: {", ".join(known)}')
    return names


def check_positive(**numbers: Any) -> None:
    """Raises InputError, which names the argument, unless each value is an integer above 0."""
    for name, given in numbers.items():
        if not _is_positive(given):
            raise InputError(f'{name} must be a positive integer, got {given!r}')


def check_not_negative(**numbers: Any) -> None:
    """Raises InputError, which names the argument, unless each value is an integer of 0 or more."""
    for name, given in numbers.items():
        if not isinstance(given, Integral) or given < 0:
            raise InputError(f'{name} must be 0 or more, got {given!r}')


def check_probability(**numbers: Any) -> None:
    """Raises InputError, which names the argument, unless each value is a number of at least 0 and below 1."""
    for name, given in numbers.items():
        if not isinstance(given, Real) or not 0 <= given < 1:
            raise InputError(f'{name} must be at least 0 and below 1, got {given!r}')


def check_all_positive(**lists: Any) -> None:
    """Raises InputError, which names the argument, unless each value is a non-empty list of integers above 0."""
    for name, given in lists.items():
        if not (isinstance(given, Sequence) and given and all(map(_is_positive, given))):
            raise InputError(f'{name} must be a list of positive integers, got {given!r}')


def without_none(**arguments: Any) -> dict[str, Any]:
    """Returns the arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def _is_positive(number: Any) -> bool:
    return isinstance(number, Integral) and number > 0
