"""The one beginning of a run: a config or a folder becomes what trains, tests, predicts, browses and searches take."""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.adapters.choose import scope_and_adapter
from icconv_mm.app.runs.backbone_defaults import keep_former_defaults
from icconv_mm.app.runs.config import config_beside, read_config
from icconv_mm.app.runs.explain_errors import ErrorExplainer
from icconv_mm.config_tree import DatasetAt, Node, datasets_of, kind_of, walk
from icconv_mm.errors import ArgumentError, InputError
from icconv_mm.files import require_file
from icconv_mm.registry import LIBRARIES
from icconv_mm.run_folder import checkpoint_of
from icconv_mm.tasks.libraries import NO_LIBRARY


@dataclass(eq=False)
class TaskRun:
    """A config with what is found in it once, which all functions of a run take.

    ``nodes``, ``datasets`` and ``errors`` are found at the first access; :meth:`changed` finds them anew.

    Attributes:
        cfg: The config. It may be changed in place until the runner is built.
        scope: The library that the config is for, as :func:`icconv_mm.tasks.libraries.scope_of` returns it.
        adapter: The adapter of the task; ``TaskAdapter`` itself for an unknown task.
        name: Name of the config in an error.
        checkpoint: The checkpoint that the run begins from; None if it was given none.
    """

    cfg: Config
    scope: str | None
    adapter: TaskAdapter
    name: str
    checkpoint: str | None = None

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Returns all dicts of the config with their locations, outer ones first."""
        return tuple(walk(self.cfg))

    @functools.cached_property
    def datasets(self) -> dict[str, tuple[DatasetAt, ...]]:
        """Returns the datasets of ``'train'``, ``'val'`` and ``'test'``, with locations."""
        return datasets_of(self.cfg)

    @functools.cached_property
    def errors(self) -> ErrorExplainer:
        """Returns the context that explains what the run raises, which is a hook of its runner, too."""
        metrics = {
            node.location: node.cfg['ann_file']
            for node in self.nodes
            if node.part in ('val_evaluator', 'test_evaluator') and 'Coco' in node.kind and node.cfg.get('ann_file')
        }
        loaders = {phase: self.cfg.get(f'{phase}_dataloader') or {} for phase in self.datasets}
        return ErrorExplainer(self.name, self.cfg.get('work_dir'), self.adapter, loaders, self.datasets, metrics)

    def changed(self) -> None:
        """Forgets what was found in the config, because parts of it were added, replaced or removed."""
        for name in ('nodes', 'datasets', 'errors'):
            self.__dict__.pop(name, None)

    def build_model(self) -> nn.Module:
        """Builds the model without weights; changes the config in place. Raises InputError if a part is wrong."""
        init_default_scope('mmengine' if self.scope in NO_LIBRARY else self.scope)
        model = self.cfg.model
        model.pop('pretrained', None)  # a checkpoint holds all weights
        for node in self.nodes:
            if node.part == 'model':
                node.cfg.pop('init_cfg', None)
        self.changed()
        if self.cfg.get('data_preprocessor'):  # mmpretrain's configs have it beside the model
            model.setdefault('data_preprocessor', self.cfg.data_preprocessor)
        with self.errors:
            return revert_sync_batchnorm(MODELS.build(model))

    def build_dataset(self, phase: str) -> Any:
        """Builds the dataset of a phase; raises DatasetError or InputError if its files or its config are wrong."""
        init_default_scope(self.adapter.library)
        self.errors.building = f'{phase}_dataloader'
        with self.errors:
            return DATASETS.build(self.datasets[phase][0].cfg)

    def build_pipeline(self) -> Compose:
        """Builds :meth:`inference_transforms`; raises InputError if one of them cannot be built."""
        with self.errors:
            return Compose(self.inference_transforms())

    def inference_transforms(self) -> list[dict]:
        """Returns the transforms of the test dataset, whose absence is an InputError, without those of annotations."""
        datasets, labels = self.datasets['test'] or self.datasets['val'], re.compile('Load.*(Annotations|SegMap)')
        if not datasets:
            raise InputError(f'{self.name}: no test_dataloader, which says how images are prepared')
        transforms = next((dataset.pipeline for dataset in datasets if dataset.pipeline), None)
        if transforms is None:
            raise InputError(f'{self.name}: no pipeline in the dataset of the test_dataloader')
        return [transform for transform in transforms if not labels.fullmatch(kind_of(transform))]


class Purpose:
    """What a run is for: a record of options that knows how a config is prepared for it, in place."""

    def prepare(self, run: TaskRun) -> None:
        """Changes the config; raises MissingFileError or InputError if a file is missing or an option does not fit."""
        raise NotImplementedError


def begin(
    given: TaskRun | Config | str | Path,
    checkpoint: str | None = None,
    purpose: Purpose | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    work_dir: str | None = None,
) -> TaskRun:
    """Returns the run of a config, ready for a purpose.

    Args:
        given: A config, changed in place, or its file; the folder of a training, whose config and best checkpoint are
            taken; or a run that has begun before.
        checkpoint: The checkpoint that the run begins from, if the purpose has one.
        purpose: What the run is for; by default it is only read.
        options: Dotted keys of a file and their values. A key that looks misspelt, or that nothing reads, is refused.
        work_dir: Folder of logs and checkpoints; by default the ``work_dir`` of the file, else
            ``work_dirs/<config name>``.

    Raises:
        ArgumentError: ``given`` is no name of a file.
        MissingFileError: The file, the checkpoint, or one that the purpose needs does not exist.
        InputError: The file cannot be read, an option does not exist, or the config does not fit the purpose.
        MissingLibraryError: The config is for a task library that is not installed.
    """
    run = given
    if not isinstance(given, (TaskRun, Config)):
        if not isinstance(given, (str, Path)):
            raise ArgumentError('path', f'expected the name of a config file, got {type(given).__name__}')
        if Path(given).is_dir():
            checkpoint = checkpoint or checkpoint_of(given)
            given = config_beside(checkpoint)
        require_file(Path(given), 'config')
        given = read_config(given, options, work_dir)
    if isinstance(given, Config):
        name = str(given.filename)
        run = TaskRun(given, *scope_and_adapter(given, name), name)
        if run.scope in LIBRARIES:  # a config in pure Python may have none; its strings are names of that library
            given.default_scope = run.scope
        keep_former_defaults(run.nodes)
    if checkpoint is not None:
        require_file(Path(checkpoint).expanduser(), 'checkpoint')
        run.checkpoint = str(checkpoint)
    if purpose is not None:
        run.changed()
        with run.errors:
            purpose.prepare(run)
        run.changed()
    return run


def load_run(path: str | Path, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> TaskRun:
    """Returns the run of a config file or of the folder of a training, as :func:`begin`, without a purpose."""
    if isinstance(path, (TaskRun, Config)):
        raise ArgumentError('path', f'expected the name of a config file, got {type(path).__name__}')
    return begin(path, options=options, work_dir=work_dir)


def load_config(path: str | Path, options: Mapping[str, Any] | None = None, work_dir: str | None = None) -> Config:
    """Returns the config of :func:`load_run`."""
    return load_run(path, options, work_dir).cfg
