"""What tools share that need no config, nor mmengine: a parser, options with former names, progress."""

import argparse
import errno
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from icconv_mm.errors import ArgumentError, InputError, UserError, sentence

_OPTIONS = {'options': 'cfg-options'}  # arguments whose options have another name

# What the user's disk refuses, whatever the program does.
_DISK = ('ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EISDIR', 'EEXIST', 'ENAMETOOLONG', 'EFBIG')
_DISK_ERRORS = frozenset(getattr(errno, name) for name in _DISK)


def parser(doc: str) -> argparse.ArgumentParser:
    """A tool's parser: ``doc`` is its help, options are written in full, and there is ``--debug``."""
    for known in ('pkg_resources is deprecated', 'Warning: The (bbox|polygon) is out of bounds'):  # of mmengine itself
        warnings.filterwarnings('ignore', message=known)
    # of a config by its former name, which Python would hide
    warnings.filterwarnings('default', 'The config file .* will be deprecated', DeprecationWarning)
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument('--debug', action='store_true', help='show the traceback of an error in the input')
    return made


def require_device(name: str) -> None:
    """Refuse ``--device cuda`` where torch finds no GPU.

    Raises:
        InputError: A GPU was asked for, and there is none.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: torch finds no CUDA device; use --device cpu')


def renamed_option(parser: argparse.ArgumentParser, old: str, option: argparse.Action) -> None:
    """Let ``old`` mean ``option`` for one version: hidden in the help, with a line on stderr where it is used."""

    class Renamed(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None) -> None:
            print(f'{old} is {option.option_strings[0]} now; the next version is without the old name', file=sys.stderr)
            option(parser, namespace, values, option_string)

    parser.add_argument(
        old,
        action=Renamed,
        dest=option.dest,
        type=option.type,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )


def progress(items: Iterable, description: str) -> Iterable:
    """The same items, with a bar on stderr, so that stdout holds results only."""
    from rich.console import Console  # of the extra `tools`, which not every tool needs
    from rich.progress import track

    return track(items, description, console=Console(stderr=True))


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
