"""Reading a config with what the command line changes in it, options that cannot be meant, length of a schedule."""

import ast
import difflib
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from icconv_mm.config_tree import as_list, entries, walk_dicts
from icconv_mm.errors import ArgumentError, InputError, message_of
from icconv_mm.files import require_file
from icconv_mm.hooks.schedule_lengths import stretch
from icconv_mm.registry import SCOPE
from icconv_mm.tasks.adapter import TTA_KEYS
from icconv_mm.tasks.libraries import require_library, scope_of
from icconv_mm.versions import SUPPORTED

# What a runner reads of its config beside the arguments of its constructor: ``self.cfg.get('compile')``.
_READ = re.compile(r"""self\.cfg(?:\.get\(\s*|\[)['"](\w+)['"]""")


def load_config(path: str | Path, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Read a config file and change it as ``options`` and ``work_dir`` say.

    Args:
        path: The config file.
        options: Dotted keys and their values. A key that looks like a misspelt one, or that nothing reads, is refused.
        work_dir: Folder of logs and checkpoints; by default the config's ``work_dir``, else
            ``work_dirs/<config name>``.

    Raises:
        MissingFileError: There is no such file.
        InputError: The file cannot be read, or an option does not exist.
        MissingLibraryError: The config is for a task library that is not installed.
    """
    require_file(Path(path), 'config')
    try:
        cfg = Config.fromfile(path, format_python_code=False)  # a run asks for its text four times
    except Exception as error:  # configs are Python: reading one can raise anything
        raise InputError(f'config {path} cannot be read: {type(error).__name__}: {_first_paragraph(error)}') from error
    require_library(cfg, str(path))
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
    return cfg


def check_variables(cfg: Config, path: str | Path) -> None:
    """Raise InputError for a variable of a config file that changes nothing, where something was to be changed.

    That is one that a base of the file has with another value, which has gone into other keys of the base by then, and
    one that resembles a key that has an effect. What the file itself uses is fine, and so are the files of the
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
    bases = [Config.fromfile(base, format_python_code=False) for base in _bases_of(tree, path)] if idle else []
    for name in sorted(idle) if bases else ():  # a saved config has all variables of those it came from
        former = next((base[name] for base in bases if name in base), None)
        if former is not None and former != cfg[name]:
            raise InputError(
                f'{path}: {name} = {cfg[name]!r:.60} changes nothing: the base has used {former!r:.60}; set the keys '
                'that were made of it'
            )
        if former is None and (close := difflib.get_close_matches(name, read, n=1, cutoff=0.9)):
            raise InputError(f'{path}: nothing reads {name!r}; did you mean {close[0]!r}?')


def _bases_of(tree: ast.Module, path: str | Path) -> list[str]:
    """The files that a config inherits from; those of other packages by their scope."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '_base_':
            try:
                bases = as_list(ast.literal_eval(node.value))
            except ValueError:  # computed
                return []
            return [Config._get_cfg_path(base, str(path))[0] for base in bases]
    return []


def as_config(cfg: Config | str | Path) -> Config:
    """A config as it is, or the one of a file; errors as of :func:`load_config`."""
    return cfg if isinstance(cfg, Config) else load_config(cfg)


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raise ArgumentError for an option that the config does not have and that looks like a mistake.

    New keys are fine below a dict with a ``type`` (its constructor knows better) and for what the runner reads. At the
    top level anything else is refused: a new key, and a variable of the config files (``backbone``, ``data_root``),
    whose value went into other keys when the files were read. A key that resembles an existing one is refused at any
    level.
    """
    for option in options:
        if problem := _problem_of(cfg, option):
            raise ArgumentError('options', f'{option}: {problem}')


def _problem_of(cfg: Config, option: str) -> str | None:
    """Why an option cannot be meant, if it cannot."""
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
    """The top-level keys that have an effect: what the config's runner and the tools read."""
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    kind = cfg.get('runner_type')
    runner = kind if isinstance(kind, type) else (kind and RUNNERS.get(kind)) or Runner
    return ['runner_type', *TTA_KEYS, *_read_by(runner)]


@functools.cache
def _read_by(runner: type) -> list[str]:
    arguments = [name for name in inspect.signature(runner.__init__).parameters if name not in ('self', 'cfg')]
    sources = [inspect.getsource(base) for base in runner.__mro__[:-1]]
    return list(dict.fromkeys([*arguments, *(key for source in sources for key in _READ.findall(source))]))


def _has_readers_of_its_own(cfg: Config) -> bool:
    """Whether the config brings modules of neither this package nor a library of OpenMMLab: they may read any key."""
    imports = (cfg.get('custom_imports') or {}).get('imports') or []
    names = [imports] if isinstance(imports, str) else imports
    packages = {name.split('.')[0] for name in (*names, scope_of(cfg) or SCOPE)}
    return bool(packages - {SCOPE, *SUPPORTED})


def check_marks(cfg: Config) -> None:
    """Raise InputError for text of a config that mmengine would replace when it reads its copy of the config.

    Such text comes from outside: the path of a checkpoint, a folder that was moved.
    """
    for name, text in _texts(cfg._cfg_dict):
        if '{{' in text:
            what = 'has the template mark {{, which mmengine replaces when it reads its copy of the config'
            raise InputError(f'{name}: {text!r:.200} {what}: rename it')


def _texts(node: Any, name: str = '') -> Iterator[tuple[str, str]]:
    """Every text in a part of a config, with its dotted name; keys as well."""
    if isinstance(node, str):
        yield name, node
    for key, value in entries(node).items():
        yield name, key
        yield from _texts(value, f'{name}.{key}'.lstrip('.'))


def move_data(cfg: Config, root: str) -> None:
    """Exchange the folder ``data_root`` of a config for ``root`` at the start of every path; both end with a slash."""
    former = cfg.data_root
    for node in walk_dicts(cfg):
        for key, value in node.items():
            if isinstance(value, str) and value.startswith(former) and not value.startswith(root):
                node[key] = root + value.removeprefix(former)


def set_length(cfg: Config, *, epochs: int | None = None, iters: int | None = None) -> None:
    """Train for so many epochs or iterations, with all that is counted in them in proportion.

    That is where schedulers begin, end and step, warm-up included, where pipelines switch, and how often it validates.

    Raises:
        ArgumentError: The number is less than 1, or the config counts in the other unit.
    """
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
    cfg.train_cfg[key] = given
    if (interval := cfg.train_cfg.get('val_interval', 1)) > 1:
        cfg.train_cfg.val_interval = min(max(round(ratio * interval), 1), given)
    for scheduler in walk_dicts(cfg.get('param_scheduler')):
        stretch(scheduler, ratio)
    for hook in cfg.get('custom_hooks') or ():
        if 'switch_epoch' in hook:  # of the library's PipelineSwitchHook
            hook['switch_epoch'] = round(ratio * hook['switch_epoch'])


def _first_paragraph(error: Exception) -> str:
    return ' '.join(message_of(error).split('\n\n')[0].split())
