"""Arguments that several tools share, named as in the tools of OpenMMLab."""

import argparse
import os
from typing import Any

from mmengine.config import Config, DictAction

from icconv_mm.apis.config import load_config
from icconv_mm.utils.arguments import MEMORY_FORMATS


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
    parser.add_argument(
        '--memory-format',
        choices=MEMORY_FORMATS,
        help="of the backbone's maps, instead of what its config says; auto: channels_last on the CPU",
    )


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
