"""Errors that the user can fix: their kinds, and how they get a place and a sentence. Standard library only.

The kinds are public; the functions are for this package and its tools.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

__all__ = [
    'ArgumentError',
    'InputError',
    'InputTypeError',
    'MissingArgumentFileError',
    'MissingFileError',
    'MissingLibraryError',
    'UserError',
]


class UserError(Exception):
    """An error that the user can fix: the message says what is wrong, and where. The root of all such errors.

    Attributes:
        place: The file, the field or the layer before the message; '' for none.
    """

    place = ''

    def __str__(self) -> str:
        return _joined(self.place, super().__str__())


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
        return _joined(self.place, self.argument, self.problem)


class MissingFileError(InputError, FileNotFoundError):
    """There is no such file."""


class MissingArgumentFileError(ArgumentError, MissingFileError):
    """There is no such file, which an argument names."""


class MissingLibraryError(InputError, ImportError):
    """A library is not installed, or its version is not supported."""


def _joined(*parts: str) -> str:
    return ': '.join(filter(None, parts))


# What wrong arguments in a config raise while mmengine builds objects from it.
_BUILD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, AssertionError, ImportError, OSError, RuntimeError)


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
        if not str(error).startswith(where):
            error.place = _joined(where, error.place)
        raise
    except kinds as error:
        raise InputError(f'{where}: {sentence(error)}') from error


def building(what: str) -> AbstractContextManager[None]:
    """:func:`naming`, for code that runs constructors on what a config says: there, an exception is a wrong config.

    Internal.
    """
    return naming(what, *_BUILD_ERRORS)


def require_known(names: Iterable[str], known: Collection[str], what: str) -> list[str]:
    """The names, if all are known. Internal.

    Args:
        names: The names that were given.
        known: All names that there are.
        what: What the message says before the others: ``'--tasks: no task'``.

    Raises:
        InputError: One of them is not known; the message lists those there are.
    """
    names = list(names)
    if unknown := [name for name in names if name not in known]:
        raise InputError(f'{what} {", ".join(unknown)}; there are: {", ".join(known)}')
    return names


def sentence(error: BaseException) -> str:
    """The message of an exception, without the traceback of the data loader's worker that it may carry. Internal."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(text).strip()
    if isinstance(error, KeyError) and re.fullmatch(r'[\w.]+', text):
        text = f'there is no {text!r}'
    if 'Original Traceback' in text:
        name = type(error).__name__
        text = re.sub(rf'Caught {name} in .*\n(?:\w+\.)*{name}: ', '', text, flags=re.DOTALL)
    return text or type(error).__name__
