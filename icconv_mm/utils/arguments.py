"""Checks of arguments that backbones, necks and models share."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from icconv_mm.errors import InputError

MEMORY_FORMATS = ('auto', 'channels_last', 'preserve')  # of maps, as icconv_mm.layers.set_memory_format has them


def check_positive(**numbers: Any) -> None:
    """Raise InputError, with the name of the argument, unless each is an integer above 0."""
    for name, given in numbers.items():
        if not _is_positive(given):
            raise InputError(f'{name} must be a positive integer, got {given!r}')


def check_not_negative(**numbers: Any) -> None:
    """Raise InputError, with the name of the argument, unless each is an integer of 0 or more."""
    for name, given in numbers.items():
        if not isinstance(given, Integral) or given < 0:
            raise InputError(f'{name} must be 0 or more, got {given!r}')


def check_probability(**numbers: Any) -> None:
    """Raise InputError, with the name of the argument, unless each is a number of at least 0 and below 1."""
    for name, given in numbers.items():
        if not isinstance(given, Real) or not 0 <= given < 1:
            raise InputError(f'{name} must be at least 0 and below 1, got {given!r}')


def check_all_positive(**lists: Any) -> None:
    """Raise InputError, with the name of the argument, unless each is a list of integers above 0, and not empty."""
    for name, given in lists.items():
        if not (isinstance(given, Sequence) and given and all(map(_is_positive, given))):
            raise InputError(f'{name} must be a list of positive integers, got {given!r}')


def without_none(**arguments: Any) -> dict[str, Any]:
    """The arguments that are not None."""
    return {name: value for name, value in arguments.items() if value is not None}


def _is_positive(number: Any) -> bool:
    return isinstance(number, Integral) and number > 0
