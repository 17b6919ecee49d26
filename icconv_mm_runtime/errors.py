"""Errors that a user can fix, with one-line messages that are safe for a terminal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RuntimeInputError(ValueError):
    """A file, an image or an option cannot be used; the message says which one, and why."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def escaped(text: Any) -> str:
    """Returns a text as one line: line breaks and terminal control characters become escapes such as ``\\x1b``."""
    return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def is_utf8(text: Any) -> bool:
    """Returns whether a text, such as a path, is valid UTF-8: OpenCV crashes on any other."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Context that turns any exception into a :class:`RuntimeInputError` whose message begins with ``what``."""
    try:
        yield
    except RuntimeInputError:
        raise
    except Exception as error:  # from OpenCV, the engines, or numpy on a network's outputs
        said = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise RuntimeInputError(f'{what}: {" ".join(said.split())[:200]}') from error
