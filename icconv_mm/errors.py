"""Errors that the user can fix: their classes, and the functions that add a location or shorten a message.

Imports no other library. The classes are public; the functions are for this package and its tools.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from icconv_mm_runtime.errors import printable

__all__ = [
    'ArgumentError',
    'InputError',
    'InputTypeError',
    'MissingFileError',
    'MissingLibraryError',
    'UserError',
]


class UserError(Exception):
    """Base class of the errors that the user can fix; the message says what is wrong, and where.

    Attributes:
        location: The file, the field or the layer before the message; '' if there is none.
    """

    location = ''

    def __str__(self) -> str:
        return printable(_joined_words(self.location, super().__str__()), '\n')


class InputError(UserError, ValueError):
    """Raised if an input of the user cannot be used."""


class InputTypeError(InputError, TypeError):
    """Raised if an input of the user has the wrong type, or an option does not exist."""


class ArgumentError(InputError):
    """Raised if an argument of a function cannot be used.

    Args:
        argument: The argument's name, which begins the message. Tools replace it by the name of their option.
        problem: What is wrong.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument, self.problem = argument, problem

    def __str__(self) -> str:
        return printable(_joined_words(self.location, self.argument, self.problem), '\n')


class MissingFileError(InputError, FileNotFoundError):
    """Raised if a file does not exist."""


class MissingLibraryError(InputError, ImportError):
    """Raised if a library is not installed, or its version is not supported."""


def _joined_words(*parts: str) -> str:
    return ': '.join(filter(None, parts))


@contextmanager
def naming(where: str, *kinds: type[Exception]) -> Iterator[None]:
    """Puts ``where`` before the message of a :class:`UserError`, unless the message begins with it. Internal.

    Args:
        where: The file, the field or the layer; '' if the messages of ``kinds`` name it.
        kinds: Further exceptions that only the user's input can cause here; they become an :class:`InputError`.
    """
    try:
        yield
    except UserError as error:
        if not str(error).startswith(printable(where, '\n')):
            error.location = _joined_words(where, error.location)
        raise
    except kinds as error:
        is_named = isinstance(error, OSError) and str(error.filename) == where
        raise InputError(_joined_words(where, error.strerror if is_named else message_of(error))) from error


def name_defect(name: str) -> str | None:
    """Returns why a name in the user's data is unsafe in a text file or a config; None if it is safe. Internal.

    A line break would end the line of a list. mmengine replaces template marks in a config's text before it parses it.
    """
    if is_unprintable(name):
        return 'has a control character, or is not UTF-8'
    return next((f'has the template mark {mark}' for mark in ('{{', '}}') if mark in name), None)


def check_names(names: Iterable[str], what: str) -> None:
    """Raises InputError for the first name that :func:`name_defect` rejects. Internal.

    Args:
        names: The names.
        what: What the names are, and their file: ``'classes.txt: class'``.
    """
    for name in names:
        if (defect := name_defect(name)) is not None:
            raise InputError(f'{what} {name!r:.100} {defect}: rename it')


def is_unprintable(text: str) -> bool:
    """Returns whether the text has a control character, or is a path that is not UTF-8. Internal."""
    return printable(text) != text


def message_of(error: BaseException) -> str:
    """Returns the message of an exception, without the traceback that a data loader's worker adds. Internal."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(text).strip()
    if isinstance(error, KeyError) and re.fullmatch(r'[\w.]+', text):
        text = f'there is no {text!r}'
    if 'Original Traceback' in text:
        name = type(error).__name__
        text = re.sub(rf'Caught {name} in .*\n(?:\w+\.)*{name}: ', '', text, flags=re.DOTALL)
    return text or type(error).__name__


def short(value: Any, most: int = 60) -> str:
    """Returns the beginning of a value's repr, or its type if repr fails, as for 1000 nested lists. Internal."""
    try:
        return f'{value!r:.{most}}'
    except (ValueError, RecursionError):  # ValueError: an integer of more than 4300 digits
        return f'of type {type(value).__name__}'
