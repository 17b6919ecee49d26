"""Errors that a user can fix; a terminal shows their one-line message as it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class RuntimeInputError(ValueError):
    """A file, an image or an option cannot be used; the message says which, and why."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


def escaped(text: Any) -> str:
    """A text in one line: line breaks and what controls a terminal become escapes such as ``\\x1b``."""
    return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def is_utf8(text: Any) -> bool:
    """Whether a text, such as a path, is UTF-8: OpenCV crashes on any other."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """The boundary of the runtime: any exception becomes a :class:`RuntimeInputError` that begins with ``what``."""
    try:
        yield
    except RuntimeInputError:
        raise
    except Exception as error:  # of OpenCV, of the engines, of numpy with what a network gave
        said = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        raise RuntimeInputError(f'{what}: {" ".join(said.split())[:200]}') from error
