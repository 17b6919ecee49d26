"""Reading a config and what the command line changes in it."""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from icconv_mm.errors import InputError, sentence
from icconv_mm.tasks import require_library


def load_config(path: str, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Read a config file and apply ``--cfg-options`` and ``--work-dir``.

    Args:
        path: The config file.
        options: Dotted keys and their values. A key that looks like a misspelt one is refused.
        work_dir: Where logs and checkpoints go; by default the config's ``work_dir``, else ``work_dirs/<config name>``.

    Raises:
        InputError: The file is missing or cannot be read, or an option does not exist.
        MissingLibraryError: The config is for a task library that is not installed.
    """
    if not Path(path).is_file():
        raise InputError(f'config: no such file: {path}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # configs are Python: reading one can raise anything
        raise InputError(f'config {path} cannot be read: {type(error).__name__}: {_first_paragraph(error)}') from error
    require_library(cfg, path)
    if options:
        check_options(cfg, options)
        try:
            cfg.merge_from_dict(dict(options))
        except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
            given = ' '.join(f'{key}={value}' for key, value in options.items())
            raise InputError(f'--cfg-options {given}: {_first_paragraph(error)}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(path).stem))
    return cfg


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raise InputError for an option that the config does not have and that looks like a mistake.

    New keys are fine below a dict with a ``type`` (its constructor knows better) and for arguments of the runner. At
    the top level anything else is refused, and so is a key that resembles an existing one at any level.
    """
    for option in options:
        name, node = f'--cfg-options {option}', cfg._cfg_dict
        for depth, key in enumerate(option.split('.')):
            known = _keys(node)
            if key in known:
                node = node[int(key)] if isinstance(node, Sequence) else node[key]
                continue
            if depth == 0 and key in (arguments := _runner_arguments()):
                break
            if close := difflib.get_close_matches(key, known if depth else [*known, *arguments], n=1, cutoff=0.85):
                raise InputError(f'{name}: no such key {key!r} in the config; did you mean {close[0]!r}?')
            if depth == 0:
                raise InputError(f'{name}: the config has no {key!r}, and it is no argument of the runner')
            break


def _keys(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        return [str(key) for key in node]
    if isinstance(node, Sequence) and not isinstance(node, str):
        return [str(i) for i in range(len(node))]
    return []


def _runner_arguments() -> list[str]:
    from mmengine.runner import Runner

    return [name for name in inspect.signature(Runner.__init__).parameters if name not in ('self', 'cfg')]


def _first_paragraph(error: Exception) -> str:
    return ' '.join(sentence(error).split('\n\n')[0].split())
