"""A run: its config with the changes from the command line, its task's adapter, and its datasets."""

import ast
import difflib
import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from icconv_mm.app.adapters.base import TTA_KEYS, TaskAdapter
from icconv_mm.app.adapters.choose import scope_and_adapter
from icconv_mm.app.runs.backbone_defaults import keep_former_defaults
from icconv_mm.config_tree import DatasetAt, datasets_of, entries, kind_of, walk_dicts
from icconv_mm.errors import ArgumentError, InputError, message_of
from icconv_mm.files import require_file
from icconv_mm.registry import SCOPE
from icconv_mm.run_folder import configs_beside
from icconv_mm.versions import SUPPORTED

# Top-level keys that mmengine's runners read besides the arguments of their constructors.
READ_BY_RUNNERS = (
    'activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'init_weights_for_test_or_val', 'model_wrapper_cfg', 'sync_bn',
)  # fmt: skip


@dataclass(eq=False)
class TaskRun:
    """A config with the information derived from it once, which all functions of a run take.

    Attributes:
        cfg: The config. Tools change it in place until the runner is built.
        scope: The library that the config is for, as :func:`icconv_mm.tasks.libraries.scope_of` returns it.
        adapter: The adapter of the task; ``TaskAdapter`` itself for an unknown task.
        name: Name of the config in an error.
    """

    cfg: Config
    scope: str | None
    adapter: TaskAdapter
    name: str

    @functools.cached_property
    def datasets(self) -> dict[str, tuple[DatasetAt, ...]]:
        """Returns the datasets of ``'train'``, ``'val'`` and ``'test'``, with locations, as of the first access."""
        return datasets_of(self.cfg)


def load_config(path: str | Path, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Returns the config of :func:`load_run`."""
    return load_run(path, options, work_dir).cfg


def as_run(given: TaskRun | Config | str | Path) -> TaskRun:
    """Returns a run unchanged, or the run of a config or of its file; raises the errors of :func:`load_run`."""
    if isinstance(given, TaskRun):
        return given
    if not isinstance(given, Config):
        return load_run(given)
    keep_former_defaults(given)
    name = str(given.filename)
    return TaskRun(given, *scope_and_adapter(given, name), name)


def load_run(path: str | Path, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> TaskRun:
    """Reads a config file and applies ``options`` and ``work_dir``.

    Args:
        path: The config file.
        options: Dotted keys and their values. A key that looks misspelt, or that nothing reads, is refused.
        work_dir: Folder of logs and checkpoints; by default the config's ``work_dir``, else
            ``work_dirs/<config name>``.

    Raises:
        ArgumentError: ``path`` is no name of a file.
        MissingFileError: The file does not exist.
        InputError: The file cannot be read, or an option does not exist.
        MissingLibraryError: The config is for a task library that is not installed.
    """
    if not isinstance(path, (str, Path)):
        raise ArgumentError('path', f'expected the name of a config file, got {type(path).__name__}')
    require_file(Path(path), 'config')
    try:
        cfg = Config.fromfile(path, format_python_code=False)  # a run dumps its config four times
    except Exception as error:  # configs are Python code, which can raise anything
        advice = ''
        if isinstance(error, ModuleNotFoundError) and error.name == 'pkg_resources':
            advice = ', which mmengine needs for `mmdet::` and the like: pip install "setuptools<81"'
        said = f'{type(error).__name__}: {_first_paragraph(error)}{advice}'
        raise InputError(f'config {path} cannot be read: {said}') from error
    check_variables(cfg, path)
    if options:
        check_options(cfg, options)
        try:
            cfg.merge_from_dict(dict(options))
        except (KeyError, TypeError, ValueError, AssertionError, IndexError, AttributeError) as error:
            given = ' '.join(f'{key}={value}' for key, value in options.items())
            raise ArgumentError('options', f'{given}: {_first_paragraph(error)}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(path).stem))
    return as_run(cfg)


def config_beside(checkpoint: str | Path) -> Path:
    """Returns the config that a training wrote into the folder of its checkpoint, and logs its name.

    Raises:
        MissingFileError: The checkpoint does not exist.
        ArgumentError: The folder has no config that a training wrote, or several.
    """
    require_file(checkpoint, 'checkpoint')
    found, others = configs_beside(checkpoint)
    if len(found) != 1:
        names = f'several configs beside it: {", ".join(path.name for path in found)}' if found else 'none beside it'
        scripts = ', '.join(path.name for path in others[:4])
        why = f' ({scripts}: not written by a training, and not run unless you give it)' if others else ''
        raise ArgumentError('config', f'{checkpoint}: {names}{why}; say which')
    print_log(f'config: {found[0]}', 'current')
    return found[0]


def check_variables(cfg: Config, path: str | Path) -> None:
    """Raises InputError for a variable of a config file that has no effect but looks as if it should.

    That is a variable with another value in a base of the file, which has already used it in other keys, and one that
    resembles a key with an effect. Variables that the file itself uses are accepted, and so are the files of the
    libraries, which nobody edits.
    """
    if Path(path).suffix != '.py' or 'site-packages' in Path(path).parts or _has_readers_of_its_own(cfg):
        return
    tree = ast.parse(Path(path).read_bytes())
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    given = {target.id for target in targets if isinstance(target, ast.Name)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    read = _read_keys(cfg)
    idle = [name for name in given - used - {*read, '_base_', 'custom_imports'} if name in cfg]
    bases = [Config.fromfile(base, format_python_code=False) for base in _bases_of(path)] if idle else []
    for name in sorted(idle) if bases else ():  # a saved config has the variables of all its bases
        former = next((base[name] for base in bases if name in base), None)
        if former is not None and former != cfg[name]:
            raise InputError(
                f'{path}: {name} = {cfg[name]!r:.60} changes nothing: the base has used {former!r:.60}; set the keys '
                'that were made of it'
            )
        if former is None and (close := difflib.get_close_matches(name, read, n=1, cutoff=0.9)):
            raise InputError(f'{path}: nothing reads {name!r}; did you mean {close[0]!r}?')


def _bases_of(path: str | Path) -> list[str]:
    """Returns the files that a config inherits from; bases of other packages are given by scope."""
    return [Config._get_cfg_path(base, str(path))[0] for base in Config._get_base_files(str(path))]


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raises ArgumentError for an option that the config does not have and that looks like a mistake.

    New keys are accepted below a dict with a ``type`` (its constructor checks them) and if the runner reads them. At
    the top level any other key is refused: a new one, and a variable of the config files (``backbone``, ``data_root``),
    whose value was used in other keys when the files were read. A key that resembles an existing one is refused at any
    level.
    """
    for option in options:
        if problem := _problem_of(cfg, option):
            raise ArgumentError('options', f'{option}: {problem}')


def _problem_of(cfg: Config, option: str) -> str | None:
    """Returns why an option looks like a mistake; None if it does not."""
    node, read = cfg._cfg_dict, _read_keys(cfg)
    keys = option.split('.')
    for depth, key in enumerate(keys):
        known = entries(node)
        if key in known:
            if depth == 0 and key not in read and not _has_readers_of_its_own(cfg):
                return f'{key!r} has an effect only inside the config files'
            node = known[key]
            continue
        if depth == 0 and key in read:
            return None
        if isinstance(node, (list, tuple)):
            location, rest = '.'.join(keys[:depth]), '.'.join(keys[depth:])
            return f'{location} is a list of {len(node)}: write {location}.N, N counted from 0' + (
                '' if key.isdigit() else f', as in {location}.0.{rest}'
            )
        if close := difflib.get_close_matches(key, [*known] if depth else [*known, *read], n=1, cutoff=0.85):
            return f'no such key {key!r} in the config; did you mean {close[0]!r}?'
        return f'the config has no {key!r}, and it is no argument of the runner' if depth == 0 else None
    return None


def _read_keys(cfg: Config) -> list[str]:
    """Returns the top-level keys with an effect: those that the config's runner and the tools read."""
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    kind = cfg.get('runner_type')
    runner = kind if isinstance(kind, type) else (kind and RUNNERS.get(kind)) or Runner
    arguments = [name for name in inspect.signature(runner.__init__).parameters if name not in ('self', 'cfg')]
    return list(dict.fromkeys(['runner_type', *TTA_KEYS, *arguments, *READ_BY_RUNNERS]))


def _has_readers_of_its_own(cfg: Config) -> bool:
    """Returns whether the config imports modules from outside this package and OpenMMLab; they may read any key."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    names = [imports] if isinstance(imports, str) else imports
    packages = {name.split('.')[0] for name in (*names, cfg.get('default_scope') or 'mmengine')}
    return bool(packages - {SCOPE, *SUPPORTED})


def move_data(cfg: Config, root: str) -> None:
    """Replaces the folder ``data_root`` of a config by ``root`` at the start of every path; both end with a slash."""
    former = cfg.data_root
    for node in walk_dicts(cfg):
        for key, value in node.items():
            if isinstance(value, str) and value.startswith(former) and not value.startswith(root):
                node[key] = root + value.removeprefix(former)


def set_length(cfg: Config, *, epochs: int | None = None, iters: int | None = None) -> None:
    """Sets the number of epochs or iterations and scales everything that is counted in them.

    That is where schedulers begin, end and step, warm-up included, and what :mod:`icconv_mm.app.runs.lengths` lists; a
    note names options of other hooks that may count them, too.

    Raises:
        ArgumentError: The number is less than 1, or the config counts in the other unit.
    """
    from icconv_mm.app.runs.lengths import scale_counts
    from icconv_mm.app.runs.schedules import (
        stretch,  # imports mmengine's runner, which the help of a tool does not need
    )

    name, given, key = ('epochs', epochs, 'max_epochs') if iters is None else ('iters', iters, 'max_iters')
    if given is None:
        return
    if epochs is not None and iters is not None:
        raise ArgumentError('iters', 'the length is given by --epochs as well')
    if given < 1:
        raise ArgumentError(name, f'a training needs 1 or more, got {given}')
    former = (cfg.get('train_cfg') or {}).get(key)
    if former is None:
        other = 'iters' if name == 'epochs' else 'epochs'
        raise ArgumentError(name, f'{cfg.filename} counts its training in {other}: give --{other}')
    ratio = given / former
    if given == former:
        return
    unknown = scale_counts(cfg, ratio)
    cfg.train_cfg[key] = given
    if (interval := cfg.train_cfg.get('val_interval', 1)) > 1:
        cfg.train_cfg.val_interval = min(interval, given)
    for scheduler in walk_dicts(cfg.get('param_scheduler')):
        stretch(scheduler, kind_of(scheduler), ratio)
    if unknown:
        what = f'may count the {name} of a training of {former}, and stay as they are'
        print_log(f'{", ".join(unknown)} {what}: --cfg-options changes them', 'current')


def _first_paragraph(error: Exception) -> str:
    return ' '.join(message_of(error).split('\n\n')[0].split())
