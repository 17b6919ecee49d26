"""Reading a config with what the command line changes in it, and changes that several purposes share."""

from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.config import config as mmengine_config

from icconv_mm.apis.config_options import check_options
from icconv_mm.datasets.loading import LoadImageFromFile
from icconv_mm.errors import ArgumentError, InputError, sentence
from icconv_mm.registry import scoped
from icconv_mm.tasks.libraries import require_library
from icconv_mm.utils.config_tree import as_list, dicts_in, kind_of
from icconv_mm.utils.files import require_file


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
    format_once()
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # configs are Python: reading one can raise anything
        raise InputError(f'config {path} cannot be read: {type(error).__name__}: {_first_paragraph(error)}') from error
    require_library(cfg, str(path))
    if options:
        check_options(cfg, options)
        try:
            cfg.merge_from_dict(dict(options))
        except (KeyError, TypeError, ValueError, AssertionError, IndexError) as error:
            given = ' '.join(f'{key}={value}' for key, value in options.items())
            raise ArgumentError('options', f'{given}: {_first_paragraph(error)}') from error
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(path).stem))
    return cfg


def as_config(cfg: Config | str | Path) -> Config:
    """A config as it is, or the one of a file; errors as of :func:`load_config`."""
    return cfg if isinstance(cfg, Config) else load_config(cfg)


@cache
def format_once() -> None:
    """Let mmengine keep the formatted text of a config: a run asks for the same four times, and each takes seconds."""
    place = mmengine_config
    if not hasattr(place, 'FormatCode'):  # forks import it when they format
        from yapf.yapflib import yapf_api as place
    place.FormatCode = _remembering(place.FormatCode)


def _remembering(format_code: Callable) -> Callable:
    latest = {}

    @wraps(format_code)
    def formatted(text: str, **options: Any) -> Any:
        key = text, repr(options)
        if key not in latest:
            result = format_code(text, **options)
            latest.clear()
            latest[key] = result
        return latest[key]

    return formatted


def model_without_own_weights(cfg: Config) -> dict:
    """``cfg.model`` as a model that takes all its weights from one checkpoint: no part of it loads its own."""
    cfg.model.pop('pretrained', None)
    for node in dicts_in(cfg.model):
        node.pop('init_cfg', None)
    if cfg.get('data_preprocessor'):  # mmpretrain keeps it beside the model
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return cfg.model


def replace_image_loading(cfg: Any, *, skip_bad: bool = False) -> None:
    """Put :class:`icconv_mm.datasets.loading.LoadImageFromFile` in the place of the transforms that load images.

    Args:
        cfg: A config, or a part of one; changed in place.
        skip_bad: Whether to skip images that cannot be read, as for the transform.
    """
    for node in dicts_in(cfg):
        if kind_of(node) in ('LoadImageFromFile', 'LoadImage'):
            node['type'] = scoped(LoadImageFromFile)
            if skip_bad:
                node['skip_bad'] = True


def move_data(cfg: Config, root: str) -> None:
    """Exchange the folder ``data_root`` of a config for ``root`` at the start of every path; both end with a slash."""
    former = cfg.data_root
    for node in dicts_in(cfg):
        for key, value in node.items():
            if isinstance(value, str) and value.startswith(former) and not value.startswith(root):
                node[key] = root + value.removeprefix(former)


def iterations_of(cfg: Config) -> int:
    """How long a config trains.

    Raises:
        InputError: The schedule is in epochs.
    """
    if 'max_iters' not in cfg.train_cfg:
        raise InputError(f'{cfg.filename}: train_cfg has no max_iters: a schedule in iterations is needed')
    return cfg.train_cfg.max_iters


def set_iterations(cfg: Config, iterations: int) -> None:
    """Train for so many iterations, with the schedule of the learning rate in proportion.

    Raises:
        InputError: ``iterations`` is less than 1, or the schedule is in epochs.
    """
    if iterations < 1:
        raise InputError(f'a training needs at least one iteration, got {iterations}')
    ratio = iterations / iterations_of(cfg)
    cfg.train_cfg.max_iters = iterations
    for scheduler in as_list(cfg.get('param_scheduler') or []):
        for key in ('begin', 'end', 'T_max'):
            if key in scheduler:
                least = {'begin': 0, 'end': scheduler.get('begin', 0) + 1, 'T_max': 1}[key]
                scheduler[key] = max(round(ratio * scheduler[key]), least)


def _first_paragraph(error: Exception) -> str:
    return ' '.join(sentence(error).split('\n\n')[0].split())
