"""An error that the user can fix is one sentence and exit status 1; a fault of ours keeps its traceback.

Standard library only.
"""

import errno
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager


class UserError(Exception):
    """An error that the user can fix: the message says what is wrong, and where. The root of all such errors.

    Attributes:
        place: The file, the field or the layer that :func:`naming` puts before the message; '' for none.
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


_OPTIONS = {'options': 'cfg-options'}  # arguments whose options have another name

# What wrong arguments in a config raise while mmengine builds objects from it.
_BUILD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, AssertionError, ImportError, OSError, RuntimeError)


# What the user's disk refuses, whatever the program does.
_DISK = ('ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EISDIR', 'EEXIST', 'ENAMETOOLONG', 'EFBIG')
_DISK_ERRORS = frozenset(getattr(errno, name) for name in _DISK)


@contextmanager
def naming(where: str, *kinds: type[Exception]) -> Iterator[None]:
    """Put ``where`` before the message of a :class:`UserError`, unless it begins so.

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
    """:func:`naming`, for code that runs constructors on what a config says: there, an exception is a wrong config."""
    return naming(what, *_BUILD_ERRORS)


def require_known(names: Iterable[str], known: Collection[str], what: str) -> list[str]:
    """The names, if all are known.

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


@contextmanager
def reporting(debug: bool = False, after: str = '', interrupted: str = '') -> Iterator[None]:
    """Print an error that the user can fix as one sentence and exit with status 1; after Ctrl-C, with 130.

    The message of an :class:`ArgumentError` names the option of the tool in the place of the argument.
    What the disk refuses (it is full, a folder is read-only, a path is a file) is such an error, wherever it is raised.

    Args:
        debug: Raise the error, with its traceback.
        after: A second line, such as ``'Nothing was written.'``.
        interrupted: Sentence that says how things stand after Ctrl-C.
    """
    try:
        yield
    except UserError as error:
        if debug:
            raise
        if isinstance(error, ArgumentError) and not error.place:  # one of a part of a config has no option
            error.argument = _option(error.argument)
        sys.exit(f'error: {sentence(error)}\n{after}'.rstrip())
    except OSError as error:
        if debug or error.errno not in _DISK_ERRORS:
            raise
        where = f'{error.filename}: ' if error.filename else ''
        sys.exit(f'error: {where}{os.strerror(error.errno)}\n{after}'.rstrip())
    except KeyboardInterrupt:
        print(f'\ninterrupted; {interrupted}'.rstrip('; '), file=sys.stderr)
        sys.exit(130)


def _option(argument: str) -> str:
    return f'--{_OPTIONS.get(argument, argument.replace("_", "-"))}'


def sentence(error: BaseException) -> str:
    """The message of an exception, without the traceback of the data loader's worker that it may carry."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(text).strip()
    if isinstance(error, KeyError) and re.fullmatch(r'[\w.]+', text):
        text = f'there is no {text!r}'
    if 'Original Traceback' in text:
        name = type(error).__name__
        text = re.sub(rf'Caught {name} in .*\n(?:\w+\.)*{name}: ', '', text, flags=re.DOTALL)
    return text or type(error).__name__
