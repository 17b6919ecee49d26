"""Bad input is one sentence and exit status 1; a fault of ours keeps its traceback."""

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """Something that the user gave cannot be used; the message says what and where."""


# What wrong arguments in a config raise while mmengine builds objects from it.
_BUILD_ERRORS = (ValueError, TypeError, KeyError, AttributeError, AssertionError, ImportError, OSError, RuntimeError)


@contextmanager
def building(what: str) -> Iterator[None]:
    """Turn an error from building ``what`` out of a config into an :class:`InputError`.

    Only for code that runs constructors on what a config says: there, an exception means a wrong config.
    """
    try:
        yield
    except (InputError, *expected_errors()):
        raise
    except _BUILD_ERRORS as error:
        raise InputError(f'{what}: {_sentence(error)}') from error


def expected_errors() -> tuple[type[Exception], ...]:
    """The exceptions of this package whose message is meant for the user."""
    from icconv_mm.checkpoints.matching import ArchitectureMismatchError
    from icconv_mm.checkpoints.safe import CheckpointError
    from icconv_mm.datasets.checks import DatasetError
    from icconv_mm.datasets.loading import ImageFileError
    from icconv_mm.tasks import MissingLibraryError, UnknownTaskError
    from icconv_mm.tasks.base import NotSupportedError

    files = (CheckpointError, ArchitectureMismatchError, DatasetError, ImageFileError)
    return (InputError, *files, MissingLibraryError, UnknownTaskError, NotSupportedError)


@contextmanager
def reporting(debug: bool = False) -> Iterator[None]:
    """Print errors that the user can mend as one sentence and exit with status 1; with ``debug``, raise them."""
    for known in ('pkg_resources is deprecated', 'Warning: The (bbox|polygon) is out of bounds'):  # of mmengine itself
        warnings.filterwarnings('ignore', message=known)
    try:
        yield
    except expected_errors() as error:
        if debug:
            raise
        sys.exit(f'error: {_sentence(error)}')
    except KeyboardInterrupt:
        sys.exit('interrupted')


def _sentence(error: BaseException) -> str:
    """The message of an exception, without the traceback of the data loader's worker that it may carry."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = str(text).strip()
    if text.startswith('Caught ') and 'Original Traceback' in text:
        name = type(error).__name__
        text = re.split(rf'\n(?:\w+\.)*{name}: ', text)[-1].strip()
    return text or type(error).__name__
