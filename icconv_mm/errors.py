"""Errors that the user can fix: their kinds, and how they get a location and a message.

Standard library only. The kinds are public; the functions are for this package and its tools.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = [
    'ArgumentError',
    'InputError',
    'InputTypeError',
    'MissingFileError',
    'MissingLibraryError',
    'UserError',
]


# Characters that turn the direction of the text after them, so that a terminal shows another text.
_OF_DIRECTION = '\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'


class UserError(Exception):
    """An error that the user can fix: the message says what is wrong, and where. The root of all such errors.

    Attributes:
        location: The file, the field or the layer before the message; '' for none.
    """

    location = ''

    def __str__(self) -> str:
        return printable(_joined(self.location, super().__str__()), '\n')


class InputError(UserError, ValueError):
    """Something that the user gave cannot be used."""


class InputTypeError(InputError, TypeError):
    """Something that the user gave is of the wrong kind, or there is no such option."""


class ArgumentError(InputError):
    """An argument of a function cannot be used.

    Args:
        argument: The name of the argument, with which the message begins. Tools put that of their option in its place.
        problem: What is wrong.
    """

    def __init__(self, argument: str, problem: str) -> None:
        super().__init__(argument, problem)
        self.argument, self.problem = argument, problem

    def __str__(self) -> str:
        return printable(_joined(self.location, self.argument, self.problem), '\n')


class MissingFileError(InputError, FileNotFoundError):
    """There is no such file."""


class MissingLibraryError(InputError, ImportError):
    """A library is not installed, or its version is not supported."""


def _joined(*parts: str) -> str:
    return ': '.join(filter(None, parts))


@contextmanager
def naming(where: str, *kinds: type[Exception]) -> Iterator[None]:
    """Put ``where`` before the message of a :class:`UserError`, unless it begins so. Internal.

    Args:
        where: The file, the field or the layer.
        kinds: Other exceptions that only the user's input can cause here; they become an :class:`InputError`.
    """
    try:
        yield
    except UserError as error:
        if not str(error).startswith(printable(where, '\n')):
            error.location = _joined(where, error.location)
        raise
    except kinds as error:
        raise InputError(f'{where}: {message_of(error)}') from error


def printable(text: str, kept: str = '') -> str:
    """Text as a terminal may show it: control characters and lone surrogates become escapes. Internal.

    Args:
        text: Any text, such as the name of a file.
        kept: Control characters that stay.
    """
    if text.isprintable():
        return text
    return ''.join(
        each if each in kept or not _is_control(each) else each.encode('unicode_escape', 'surrogatepass').decode()
        for each in text
    )


def name_defect(name: str) -> str | None:
    """Why a name of somebody's data cannot go where programs read text; None if it can. Internal.

    A line break ends a line of a list. mmengine replaces template marks in the text of a config before it parses it.
    """
    if is_unprintable(name):
        return 'has a control character, or is not UTF-8'
    return next((f'has the template mark {mark}' for mark in ('{{', '}}') if mark in name), None)


def check_names(names: Iterable[str], what: str) -> None:
    """Raise InputError for the first name that :func:`name_defect` finds wrong. Internal.

    Args:
        names: The names.
        what: What they are, and where: ``'classes.txt: class'``.
    """
    for name in names:
        if (defect := name_defect(name)) is not None:
            raise InputError(f'{what} {name!r:.100} {defect}: rename it')


def is_unprintable(text: str) -> bool:
    """Whether text has a control character, or is a path that is not UTF-8. Internal."""
    return not text.isprintable() and any(map(_is_control, text))


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ('Cc', 'Cs', 'Zl', 'Zp') or character in _OF_DIRECTION


def message_of(error: BaseException) -> str:
    """The message of an exception, without the traceback of the data loader's worker that it may carry. Internal."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(text).strip()
    if isinstance(error, KeyError) and re.fullmatch(r'[\w.]+', text):
        text = f'there is no {text!r}'
    if 'Original Traceback' in text:
        name = type(error).__name__
        text = re.sub(rf'Caught {name} in .*\n(?:\w+\.)*{name}: ', '', text, flags=re.DOTALL)
    return text or type(error).__name__


def short(value: Any, most: int = 60) -> str:
    """The beginning of a value's repr; its type where there is none, as of lists within a thousand lists. Internal."""
    try:
        return f'{value!r:.{most}}'
    except (ValueError, RecursionError):  # the former: an integer of more than 4300 digits
        return f'of type {type(value).__name__}'
