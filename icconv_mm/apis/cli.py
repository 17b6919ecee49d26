"""Arguments that several tools share, named as in the tools of OpenMMLab."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.config import Config, DictAction
from rich.console import Console
from rich.progress import track

from icconv_mm import errors
from icconv_mm.apis.config import load_config

_OPTIONS = {'options': 'cfg-options'}  # arguments whose options have another name


def parser(doc: str) -> argparse.ArgumentParser:
    """A tool's parser: ``doc`` is its help, options are written in full, and there is ``--debug``."""
    for known in ('pkg_resources is deprecated', 'Warning: The (bbox|polygon) is out of bounds'):  # of mmengine itself
        warnings.filterwarnings('ignore', message=known)
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument('--debug', action='store_true', help='show the traceback of an error in the input')
    return made


@contextmanager
def reporting(debug: bool = False, after: str = '', interrupted: str = '') -> Iterator[None]:
    """As :func:`icconv_mm.errors.reporting`, with the option of the tool where the message names an argument."""
    with errors.reporting(debug, after, interrupted):
        try:
            yield
        except errors.ArgumentError as error:
            error.args = (re.sub(r'^\w+(?=[: ])', _option, str(error)),)
            raise


def _option(argument: re.Match) -> str:
    name = argument[0]
    return f'--{_OPTIONS.get(name, name.replace("_", "-"))}'


def require_device(name: str) -> None:
    """Refuse ``--device cuda`` where torch finds no GPU.

    Raises:
        InputError: A GPU was asked for, and there is none.
    """
    if name == 'cuda' and not torch.cuda.is_available():
        raise errors.InputError('--device cuda: torch finds no CUDA device; use --device cpu')


def renamed(parser: argparse.ArgumentParser, old: str, option: argparse.Action) -> None:
    """Let ``old`` mean ``option`` for one version: hidden in the help, with a line on stderr where it is used."""

    class Renamed(argparse.Action):
        def __call__(self, parser, namespace, values, option_string=None) -> None:
            print(f'{old} is {option.option_strings[0]} now; the next version is without the old name', file=sys.stderr)
            option(parser, namespace, values, option_string)

    parser.add_argument(
        old, action=Renamed, dest=option.dest, type=option.type, default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def progress(items: Iterable, description: str) -> Iterable:
    """The same items, with a bar on stderr, so that stdout holds results only."""
    return track(items, description, console=Console(stderr=True))


def add_config(parser: argparse.ArgumentParser) -> None:
    """The config file and what changes it."""
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """What changes a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change settings of the config: model.backbone.depth=50, a list as key="[a,b]" or key=a,b, nested as '
        'key="[(a,b),(c,d)]", without white space',
    )


def add_work_dir(parser: argparse.ArgumentParser) -> None:
    """Where logs go."""
    parser.add_argument('--work-dir', metavar='DIR', help='for logs and checkpoints (default: work_dirs/CONFIG_NAME)')


def add_memory_format(parser: argparse.ArgumentParser) -> None:
    """``--memory-format``, as of :func:`icconv_mm.layers.set_memory_format`."""
    meaning = "of the backbone's maps, instead of what its config says; auto: channels_last on the CPU"
    parser.add_argument('--memory-format', choices=('auto', 'channels_last', 'preserve'), help=meaning)


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """How processes of a distributed run were started."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch, which mim starts, passes this one; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def read_config(args: argparse.Namespace) -> tuple[Config, dict[str, Any]]:
    """The config as the arguments change it, and the arguments that are not of this module or are the launcher.

    Raises:
        InputError: As :func:`icconv_mm.apis.load_config`.
    """
    rest = vars(args).copy()
    config, options, work_dir, _ = (rest.pop(name, None) for name in ('config', 'cfg_options', 'work_dir', 'debug'))
    # mmengine reads the rank on this machine from the environment
    os.environ.setdefault('LOCAL_RANK', str(rest.pop('local_rank', 0)))
    return load_config(config, options, work_dir), rest
