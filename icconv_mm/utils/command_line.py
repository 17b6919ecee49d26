"""What tools share that need no config, nor mmengine: a parser, options with former names, progress."""

import argparse
import sys
import warnings
from collections.abc import Iterable

import torch

from icconv_mm.errors import InputError


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
