"""Shared parts of the tools: parser, arguments named as in OpenMMLab's tools, progress bar, errors as messages.

This module imports neither torch nor OpenMMLab until the options are read: help and completion take a moment.
"""

import argparse
import difflib
import errno
import glob
import inspect
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

from icconv_mm.datasets.kinds import TASKS
from icconv_mm.errors import ArgumentError, InputError, UserError, message_of
from icconv_mm.files import require_file, require_path
from icconv_mm.run_folder import checkpoint_of, last_checkpoint
from icconv_mm.versions import command_of
from icconv_mm_runtime.process import ending

if TYPE_CHECKING:
    from icconv_mm.app.runs.begin import TaskRun

_OPTION = re.compile(r'--?[A-Za-z]')  # the beginning of an option, unlike that of a negative number
_OPTIONS = {'options': 'cfg-options'}  # arguments whose option has another name

# Errors of the user's disk, which are no fault of the program.
_DISK = ('ENOSPC', 'EDQUOT', 'EROFS', 'EACCES', 'EPERM', 'ENOTDIR', 'EISDIR', 'EEXIST', 'ENAMETOOLONG', 'EFBIG')
_DISK_ERRORS = frozenset(getattr(errno, name) for name in _DISK)


def parser(doc: str) -> argparse.ArgumentParser:
    """Returns a tool's parser with the help ``doc`` and the option ``--debug``; options cannot be abbreviated."""
    return add_debug(_Parser(description=doc))


def add_debug(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the option ``--debug``, which :func:`reporting` takes, and returns the parser."""
    parser.add_argument('--debug', action='store_true', help='show the traceback of an error in the input')
    return parser


def parser_of_commands(prog: str, doc: str, commands: Mapping[str, str]) -> tuple[argparse.ArgumentParser, dict]:
    """Returns a parser for commands, whose name becomes the argument ``command``, and their own parsers by name.

    Args:
        prog: Name of the program.
        doc: Its help.
        commands: Help of each command by its name.
    """
    parser = _Parser(prog=prog, description=doc)
    below = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    return parser, {
        name: add_debug(below.add_parser(name, description=text, help=text.splitlines()[0]))
        for name, text in commands.items()
    }


class _Parser(argparse.ArgumentParser):
    """A parser that names the option nearest to an unknown one."""

    def __init__(self, **options: Any) -> None:
        deprecated = 'pkg_resources is deprecated', '``build_loss`` would be deprecated'  # OpenMMLab's own uses
        for text in (*deprecated, 'Warning: The (bbox|polygon) is out of bounds'):
            warnings.filterwarnings('ignore', message=text)
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:
        self._words = sys.argv[1:] if args is None else list(args)
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:  # refused here, where the options are known, not by the parser above
            self.error(f'unrecognized arguments: {" ".join(unknown)}')
        return options, unknown

    def error(self, message: str) -> NoReturn:
        is_missing = message.startswith('the following arguments are required')
        if is_missing and (misspelt := next(filter(self._is_unknown, self._words), None)):
            is_missing, message = False, f'unrecognized arguments: {misspelt}'  # it may stand for what is required
        text, _, given = message.partition('unrecognized arguments: ')
        unknown = next((part.partition('=')[0] for part in given.split() if _OPTION.match(part)), None)
        options = [option for option in self._option_string_actions if option.startswith('--')]
        near = difflib.get_close_matches(unknown, options, n=1, cutoff=0.7) if unknown and not text else []
        if not text and not unknown and given and all(os.path.exists(part) for part in given.split()):
            message += "; write a pattern of files in quotes, such as 'DIR/*.jpg'"  # else the shell gives its files
        elif is_missing and len(sys.argv) > 2:
            message += ' (give them first: some options take all words that follow)'
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message):
            near = difflib.get_close_matches(wrong[1], re.findall(r"[^', ]+", wrong[2]), n=1)
        super().error(message + (f'; did you mean {near[0]}?' if near else ''))

    def _is_unknown(self, word: str) -> bool:
        """Returns whether a word of the command line is an option that the parser has not."""
        return bool(_OPTION.match(word)) and word.partition('=')[0] not in self._option_string_actions


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds the config file and the options that change it."""
    parser.add_argument('config', help='config file')
    add_cfg_options(parser)


def add_checkpoint(parser: argparse.ArgumentParser, is_tool: bool) -> None:
    """Adds the checkpoint and its config, which a tool reads by position before it, as OpenMMLab's tools do."""
    if is_tool:
        add_config(parser)
    parser.add_argument('checkpoint', help='checkpoint, or the folder of a training, whose best one is taken')
    if not is_tool:
        parser.add_argument('--config', metavar='FILE', help='default: the one that the training wrote beside it')
        add_cfg_options(parser)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that change a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_Options,
        metavar='KEY=VALUE',
        help='change settings of the config: model.backbone.depth=50, a list as key="[a,b]" or key=a,b, nested as '
        'key="[(a,b),(c,d)]", without white space',
    )


class _Options(argparse.Action):
    """mmengine's ``DictAction``, but a value that it cannot read or would take for text gets a message."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Sequence[str], option: str = ''
    ) -> None:
        from mmengine.config import DictAction

        for given in values:
            key, is_given, value = given.partition('=')
            if not key or not is_given:
                raise argparse.ArgumentError(self, f'expected KEY=VALUE, got {given}')
            if not _is_balanced(value.strip('\'"')):
                raise argparse.ArgumentError(self, f'{given}: a bracket is open; quote lists: {key}="[a,b]"')
        DictAction(self.option_strings, self.dest)(parser, namespace, values, option)


def _is_balanced(value: str) -> bool:
    """Returns whether the brackets of a list, or of a text that looks like one, are balanced."""
    if not value.startswith(('[', '(')) and not value.endswith((']', ')')) and ',' not in value:
        return True
    open_ones = []
    for character in value:
        if character in '([':
            open_ones.append(character)
        elif character in ')]' and (not open_ones or open_ones.pop() + character not in ('()', '[]')):
            return False
    return not open_ones


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of :func:`icconv_mm.apis.config_for`, for training on images without a config."""
    group = parser.add_argument_group('for images without a config')
    tasks = (*TASKS, 'all')
    learned = 'what to learn (default: the only annotated task); all: one network for all annotated tasks'
    group.add_argument('--task', choices=tasks, help=learned)
    named = 'such as small, ic_resnet18 (default: on a CPU small, else ic_resnet50)'
    group.add_argument('--backbone', metavar='NAME', help=named)
    group.add_argument('--size', type=int, help='of the longer side in pixels (default: as the data ask for)')
    start = "weights to start from: a file, torchvision://NAME, none, or auto (default), the package's or torchvision's"
    group.add_argument('--pretrained', metavar='FILE', help=start)
    group.add_argument('--patience', type=int, metavar='N', help='end after N validations without progress')


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds the options for information that annotation files do not contain."""
    names = 'names to learn, in this order; for segmentation maps that nothing names, the name of each value from 0'
    parser.add_argument('--classes', nargs='+', metavar='NAME', help=names)
    parser.add_argument(
        '--ignore-index', nargs='+', type=int, default=[], metavar='N', help='values of segmentation maps to leave out'
    )
    strict = 'refuse annotations of which anything would be left out, at the first that is damaged or not there'
    parser.add_argument('--strict', action='store_true', help=strict)
    crowd = 'learn crowds and ignored objects (iscrowd, difficult), for tools that mark single objects so'
    parser.add_argument('--crowd-as-objects', action='store_true', help=crowd)
    first = 'number of the first pixel in boxes of Pascal VOC (default: as the boxes say, else 1)'
    parser.add_argument('--voc-from', type=int, choices=(0, 1), help=first)


def add_work_dir(parser: argparse.ArgumentParser, default: str = 'work_dirs/CONFIG_NAME') -> None:
    """Adds the folder of the logs, by default the named one."""
    parser.add_argument('--work-dir', metavar='DIR', help=f'for logs and checkpoints (default: {default})')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Adds the launcher of a distributed run."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch, which mim starts, passes this option; torchrun sets the environment variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def find_files(args: argparse.Namespace) -> None:
    """Finds the files among the arguments before the libraries are imported, which takes seconds.

    A folder given as the checkpoint is replaced by what :func:`icconv_mm.run_folder.checkpoint_of` returns.
    """
    given = vars(args)
    with reporting(args.debug):
        if 'checkpoint' in args:
            args.checkpoint = checkpoint_of(before := args.checkpoint)
            if args.checkpoint != before:
                print(f'checkpoint: {args.checkpoint}', file=sys.stderr)
        for name in ('int8', 'images', 'ann_file'):
            if given.get(name) is not None and not glob.has_magic(given[name]):
                require_path(given[name], f'--{name.replace("_", "-")}')
        if given.get('pretrained') not in (None, 'none', 'auto'):
            require_file(given['pretrained'], '--pretrained')
        config = given.get('config') or []
        for location in [*given.get('data', []), *([config] if isinstance(config, str) else config)]:
            if location.endswith('.py'):
                require_file(location, 'config')
            else:
                require_path(location, 'data')
        if given.get('out_dir') and os.path.isfile(given['out_dir']):
            raise ArgumentError('out_dir', f'{given["out_dir"]} is a file, not a folder')
        inputs = given.get('inputs', '0')
        if not (glob.has_magic(inputs) or inputs.isdecimal()):  # else a pattern, or the number of a camera
            require_path(inputs, 'input')


def read_run(args: argparse.Namespace) -> tuple['TaskRun', dict[str, Any]]:
    """Returns the run of the config, changed by the arguments, and the launcher and the tool's own arguments.

    Raises:
        InputError: As :func:`icconv_mm.apis.load_run`.
    """
    from icconv_mm.app.runs.begin import load_run
    from icconv_mm.app.runs.config import config_beside
    from icconv_mm.app.runs.threads import choose_threads

    rest = vars(args).copy()
    config, options, work_dir, _ = (rest.pop(name, None) for name in ('config', 'cfg_options', 'work_dir', 'debug'))
    # mmengine reads the local rank from the environment
    os.environ.setdefault('LOCAL_RANK', str(rest.pop('local_rank', 0)))
    if config is None:
        config = config_beside(rest['checkpoint'])
        work_dir = work_dir or str(config.parent / 'test')  # in the config's own folder mmengine would overwrite it
    run = load_run(config, options, work_dir)
    choose_threads(run.cfg)
    return run, rest


def read_training(args: argparse.Namespace) -> tuple['TaskRun', dict[str, Any]]:
    """Returns the same as :func:`read_run` for a training, whose config is written first if images are given.

    Raises:
        ArgumentError: An option for images without a config is used with a config, or the other way round.
        InputError: As :func:`icconv_mm.apis.config_for`.
    """
    from icconv_mm.app.runs.lengths import set_length
    from icconv_mm.app.training.own_data import config_for

    names = vars(args).keys() & inspect.signature(config_for).parameters.keys() - {'epochs', 'work_dir', 'resume'}
    of_data = {name: vars(args).pop(name) for name in sorted(names)}
    given = {name: value for name, value in of_data.items() if value not in (None, []) and value is not False}
    length = {name: vars(args).pop(name) for name in ('epochs', 'iters')}
    if (given_time := vars(args).get('time')) is not None:
        from icconv_mm.app.training.budget import Budget

        if twice := next((name for name, value in length.items() if value is not None), None):
            raise ArgumentError('time', f'the length is given by --{twice} as well')
        args.time = Budget(given_time)
    is_config = args.config[0].endswith('.py') or ('task' not in given and not os.path.exists(args.config[0]))
    if len(args.config) == 1 and is_config:
        for name in given:
            raise ArgumentError(name, f'is for images without a config, and {args.config[0]} is one')
        args.config = args.config[0]
    else:
        if length['iters'] is not None:
            raise ArgumentError('iters', 'the config of images counts epochs: give --epochs')
        if int(os.environ.get('WORLD_SIZE', 1)) > 1:
            call = f'icconv_mm.apis.config_for({args.config[0]!r}, {given.get("task")!r})'
            raise ArgumentError('launcher', f'several processes train a config that is there: write it first by {call}')
        epochs = length.pop('epochs') or vars(args).get('time')
        options = dict(epochs=epochs, work_dir=args.work_dir, resume=bool(vars(args).get('resume')))
        options['load_from'] = (vars(args).get('cfg_options') or {}).get('load_from')
        cfg = config_for(args.config, **given, **options)
        args.config, args.work_dir = cfg.filename, cfg.work_dir
    run, rest = read_run(args)
    if set(length.values()) != {None}:
        set_length(run.cfg, **length)
    return run, rest


def require_device(name: str) -> None:
    """Refuses ``--device cuda`` if torch finds no GPU.

    Raises:
        InputError: A GPU is required, but there is none.
    """
    import torch

    if name == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: torch finds no CUDA device; use --device cpu')


def progress(items: Iterable, description: str) -> Iterable:
    """Yields the items with a progress bar on stderr; stdout stays for results."""
    from icconv_mm.app.commands import tables  # they need an extra (`tools`) that not every tool needs

    return tables.progress_bar(items, description, getattr(items, 'frames', None), tables.console(stderr=True))


def say_how_to_go_on(run: 'TaskRun', time: str | None = None) -> None:
    """Says which checkpoint an interrupted training has saved, and how it goes on from there, within ``time``."""
    with suppress(ArgumentError):  # the checkpoint is gone
        saved = last_checkpoint(run.cfg.work_dir)
        within = ('--time', time) if time else ()
        command = command_of('train', run.name, '--work-dir', str(run.cfg.work_dir), *within, '--resume')
        going = f'{saved} is saved; {command} goes on from there' if saved else 'nothing is saved yet'
        print(f'\n{going}', file=sys.stderr)


@contextmanager
def reporting(debug: bool = False, after: str = '', interrupted: str = '') -> Iterator[None]:
    """Prints an error that the user can fix as one message and exits with status 1; after Ctrl-C, with 130.

    The message of an :class:`ArgumentError` names the tool's option instead of the argument.
    An error of the disk (it is full, a folder is read-only, a path is a file) is such an error, wherever it is raised.

    Args:
        debug: Whether to raise the error, with its traceback.
        after: A second line, such as ``'Nothing was written.'``.
        interrupted: Message after Ctrl-C.
    """
    try:
        with ending(interrupted):
            yield
    except UserError as error:
        if debug:
            raise
        if isinstance(error, ArgumentError) and not error.location:  # an argument with a location has no option
            error.argument = f'--{_OPTIONS.get(error.argument, error.argument.replace("_", "-"))}'
        sys.exit(f'error: {message_of(error)}\n{after}'.rstrip())
    except OSError as error:
        if debug or error.errno not in _DISK_ERRORS:
            raise
        where = f'{error.filename}: ' if error.filename else ''
        sys.exit(f'error: {where}{os.strerror(error.errno)}\n{after}'.rstrip())
