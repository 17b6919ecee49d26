"""Reading a config with what the command line changes in it, and changes that several purposes share."""

import copy
import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from icconv_mm.datasets.loading import LoadImageFromFile
from icconv_mm.datasets.walk import as_list, dicts_in, kind_of
from icconv_mm.errors import ArgumentError, InputError, sentence
from icconv_mm.tasks.lookup import require_library

VARIANTS = ('dense', 'analytic', 'searched', 'inherited')  # what the search compares


def load_config(path: str, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Read a config file and change it as ``options`` and ``work_dir`` say.

    Args:
        path: The config file.
        options: Dotted keys and their values. A key that looks like a misspelt one is refused.
        work_dir: Folder of logs and checkpoints; by default the config's ``work_dir``, else
            ``work_dirs/<config name>``.

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
            raise ArgumentError(f'options {given}: {_first_paragraph(error)}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(path).stem))
    return cfg


def check_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Raise ArgumentError for an option that the config does not have and that looks like a mistake.

    New keys are fine below a dict with a ``type`` (its constructor knows better) and for arguments of the runner. At
    the top level anything else is refused, and so is a key that resembles an existing one at any level.
    """
    for option in options:
        name, node = f'options {option}', cfg._cfg_dict
        for depth, key in enumerate(option.split('.')):
            known = _keys(node)
            if key in known:
                node = node[int(key)] if isinstance(node, Sequence) else node[key]
                continue
            if depth == 0 and key in (arguments := _runner_arguments()):
                break
            if close := difflib.get_close_matches(key, known if depth else [*known, *arguments], n=1, cutoff=0.85):
                raise ArgumentError(f'{name}: no such key {key!r} in the config; did you mean {close[0]!r}?')
            if depth == 0:
                raise ArgumentError(f'{name}: the config has no {key!r}, and it is no argument of the runner')
            break


def model_config(cfg: Config) -> dict:
    """``cfg.model`` as a model that takes all its weights from one checkpoint: no part of it loads its own."""
    cfg.model.pop('pretrained', None)
    for node in dicts_in(cfg.model):
        node.pop('init_cfg', None)
    if cfg.get('data_preprocessor'):  # mmpretrain keeps it beside the model
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg.model


def comparison_config(
    cfg: Config, work_dir: Path, *, seed: int, pattern: Any = None, start: Path | None = None
) -> Config:
    """A copy of a supernet's config for one of the trainings that the search compares.

    It trains with ``pattern`` in the place of the supernet, and from the checkpoint ``start``, where they are given.
    """
    cfg = copy.deepcopy(cfg)
    if pattern is not None:
        cfg.model.backbone.pop('supernet_d_max')
        cfg.model.backbone.pattern = pattern
    if start is not None:
        cfg.load_from = str(start)
    cfg.randomness = {**cfg.get('randomness', {}), 'seed': seed}
    cfg.train_cfg.val_interval = cfg.train_cfg.max_iters  # evaluated and saved once, at the end
    cfg.default_hooks.checkpoint = None
    cfg.work_dir = str(work_dir)
    return cfg


def replace_image_loading(cfg: Any, *, skip_bad: bool = False) -> None:
    """Put :class:`icconv_mm.datasets.loading.LoadImageFromFile` in the place of the transforms that load images.

    Args:
        cfg: A config, or a part of one; changed in place.
        skip_bad: Whether to skip images that cannot be read, as for the transform.
    """
    for node in dicts_in(cfg):
        if kind_of(node) in ('LoadImageFromFile', 'LoadImage'):
            node['type'] = f'icconv_mm.{LoadImageFromFile.__name__}'
            if skip_bad:
                node['skip_bad'] = True


def set_iterations(cfg: Config, iterations: int) -> None:
    """Train for so many iterations, with the schedule of the learning rate in proportion.

    Raises:
        InputError: ``iterations`` is less than 1.
    """
    if iterations < 1:
        raise InputError(f'a training needs at least one iteration, got {iterations}')
    ratio = iterations / cfg.train_cfg.max_iters
    cfg.train_cfg.max_iters = iterations
    for scheduler in as_list(cfg.get('param_scheduler') or []):
        for key in ('begin', 'end', 'T_max'):
            if key in scheduler:
                least = {'begin': 0, 'end': scheduler.get('begin', 0) + 1, 'T_max': 1}[key]
                scheduler[key] = max(round(ratio * scheduler[key]), least)


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
