"""Errors that a user can fix, with one-line messages that are safe for a terminal."""

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Control characters for the text direction: after one of them, a terminal shows the text in another order.
_OF_DIRECTION = '\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069'


class RuntimeInputError(ValueError):
    """A file, an image or an option cannot be used; the message says which one, and why."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: Any, kept: str = '') -> str:
    """Returns the text with escapes such as ``\\x1b`` for control characters and lone surrogates, safe for a terminal.

    Args:
        text: Any text, such as a file name.
        kept: Control characters that are not printable.
    """
    if (text := str(text)).isprintable():
        return text
    return ''.join(
        letter
        if letter in kept or not _is_control(letter)
        else letter.encode('unicode_escape', 'surrogatepass').decode()
        for letter in text
    )


def _is_control(letter: str) -> bool:
    is_no_character = ord(letter) & 0xFFFE == 0xFFFE or 0xFDD0 <= ord(letter) <= 0xFDEF  # XML has none of them
    return is_no_character or unicodedata.category(letter) in ('Cc', 'Cs', 'Zl', 'Zp') or letter in _OF_DIRECTION


def is_utf8(text: Any) -> bool:
    """Returns whether a text, such as a path, is valid UTF-8: OpenCV crashes on any other."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Converts any exception into a :class:`RuntimeInputError` whose message begins with ``what``."""
    try:
        yield
    except RuntimeInputError:
        raise
    except Exception as error:  # from OpenCV, the engines, or numpy on a network's outputs
        said = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise RuntimeInputError(f'{what}: {" ".join(said.split())[:200]}') from error
