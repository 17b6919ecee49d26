"""Checks of arguments that backbones, necks and models share."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any


def check_positive(**numbers: Any) -> None:
    """Raise ValueError, with the name of the argument, unless each is an integer above 0."""
    for name, given in numbers.items():
        if not _is_positive(given):
            raise ValueError(f'{name} must be a positive integer, got {given!r}')


def check_all_positive(**lists: Any) -> None:
    """Raise ValueError, with the name of the argument, unless each is a list of integers above 0, and not empty."""
    for name, given in lists.items():
        if not (isinstance(given, Sequence) and given and all(map(_is_positive, given))):
            raise ValueError(f'{name} must be a list of positive integers, got {given!r}')


def _is_positive(number: Any) -> bool:
    return isinstance(number, Integral) and number > 0
