"""Reads the config of a run, and applies and checks the changes from the command line."""

import difflib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from icconv_mm.app.adapters.base import TTA_KEYS
from icconv_mm.checkpoints.metadata import meta_of
from icconv_mm.checkpoints.reading import read
from icconv_mm.config_tree import entries, walk_dicts
from icconv_mm.errors import ArgumentError, InputError, message_of, naming
from icconv_mm.files import require_file
from icconv_mm.registry import SCOPE
from icconv_mm.run_folder import configs_beside
from icconv_mm.versions import SUPPORTED

# Top-level keys that mmengine's runners read besides the arguments of their constructors.
READ_BY_RUNNERS = (
    'activation_checkpointing', 'compile', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'init_weights_for_test_or_val', 'model_wrapper_cfg', 'sync_bn',
)  # fmt: skip


def read_config(path: str | Path, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Reads a config file that exists, with the arguments and errors of :func:`icconv_mm.apis.load_run`."""
    try:
        cfg = Config.fromfile(path, format_python_code=False)  # a run dumps its config four times
    except Exception as error:  # configs are Python code, which can raise anything
        advice = ''
        if isinstance(error, ModuleNotFoundError) and error.name == 'pkg_resources':
            advice = ', which mmengine needs for `mmdet::` and the like: pip install "setuptools<81"'
        said = f'{type(error).__name__}: {_first_paragraph(error)}{advice}'
        raise InputError(f'config {path} cannot be read: {said}') from error
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


def config_beside(checkpoint: str | Path) -> Path:
    """Returns the config that a training wrote into the folder of its checkpoint, and logs its name.

    Raises:
        MissingFileError: The checkpoint does not exist.
        ArgumentError: The folder has no config that a training wrote, or several.
    """
    require_file(checkpoint, 'checkpoint')
    configs, others = configs_beside(checkpoint, stored_config)
    if len(configs) != 1:
        names = (
            f'several configs beside it: {", ".join(path.name for path in configs)}' if configs else 'none beside it'
        )
        scripts = ', '.join(path.name for path in others[:4])
        why = f' ({scripts}: not as its training wrote it, and not run unless you give it)' if others else ''
        raise ArgumentError('config', f'{checkpoint}: {names}{why}; say which')
    print_log(f'config: {configs[0]}', 'current')
    return configs[0]


def stored_config(checkpoint: str | Path) -> str | None:
    """Returns the text that mmengine has written into a checkpoint."""
    with naming(str(checkpoint)):
        text = meta_of(read(checkpoint)).get('cfg')
    return text if isinstance(text, str) else None


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
        values = entries(node)
        if key in values:
            if depth == 0 and key not in read and not _has_readers_of_its_own(cfg):
                return f'{key!r} has an effect only inside the config files'
            node = values[key]
            continue
        if depth == 0 and key in read:
            return None
        if isinstance(node, (list, tuple)):
            location, rest = '.'.join(keys[:depth]), '.'.join(keys[depth:])
            return f'{location} is a list of {len(node)}: write {location}.N, N counted from 0' + (
                '' if key.isdigit() else f', as in {location}.0.{rest}'
            )
        if close := difflib.get_close_matches(key, [*values] if depth else [*values, *read], n=1, cutoff=0.85):
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


def _first_paragraph(error: Exception) -> str:
    return ' '.join(message_of(error).split('\n\n')[0].split())
