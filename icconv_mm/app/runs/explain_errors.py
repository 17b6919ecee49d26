"""Turns the exceptions of a run into messages, in one module."""

import re
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm import versions
from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.config_tree import DatasetAt
from icconv_mm.datasets.checks import DatasetError, check_coco_file, check_measures, explain_coco
from icconv_mm.errors import ArgumentError, InputError, UserError, message_of, naming
from icconv_mm.run_folder import last_checkpoint

# The part of a config that each method of mmengine and of a run builds. They are found in the traceback; without them,
# the user of a long config would not learn which part of it cannot be built.
_BUILT = {
    'build_model': 'model',
    'build_pipeline': 'test pipeline',
    'build_train_loop': 'train_dataloader',
    'build_val_loop': 'val_dataloader',
    'build_test_loop': 'test_dataloader',
    'build_optim_wrapper': 'optim_wrapper',
    'build_param_scheduler': 'param_scheduler',
}
# numpy raises it in mmengine's BaseDataset if no image is left: without it, classes that fit no annotation would end in
# a message about arrays.
_NOTHING_LEFT = 'need at least one array to concatenate'
# torch raises it for batch norm of one image whose feature map is one pixel.
_ONE_VALUE = 'Expected more than 1 value per channel when training'
# torch raises it where the memory of the machine does not suffice; of a GPU it is an OutOfMemoryError.
_NO_MEMORY = "can't allocate memory"
# gloo and NCCL raise it if another process does not answer or has ended.
_GONE = re.compile(
    r'[Tt]imed out|[Tt]imeout|[Cc]onnection (?:closed|reset|refused)|Broken pipe|[Rr]emote (?:process|rank)'
)


# torch raises the first ones where a process of a data loader has ended, the others in one without shared memory.
_KILLED = re.compile(r'DataLoader worker .*(?:is killed by signal|exited unexpectedly)', re.DOTALL)
_NO_SHARED_MEMORY = re.compile(r'unable to (?:write to file|mmap|open shared memory|allocate shared memory)|Bus error')


class ProcessGoneError(UserError, RuntimeError):
    """Raised if another process of a run has ended, or does not answer within ``env_cfg.dist_cfg.timeout`` seconds."""


@dataclass(eq=False)
class ErrorExplainer(Hook):
    """A context that turns the exceptions of a run into errors that say where to look.

    Until the first step, an exception is the fault of the config or of a file that it names. Later, it is a bug, except
    for annotations that a metric cannot read, batches too small for batch norm or too large for the memory, and another
    process that has ended. As a hook of the runner it records how far the run has come, and the file of an error: the
    config's, then the checkpoint's.

    Raises:
        DatasetError: A dataset or metric cannot read an annotation file, or no image is left.
        ProcessGoneError: Communication with another process of the run fails.
        InputError: A part of the config cannot be built or loaded, or the memory does not suffice.
    """

    priority: ClassVar[str] = 'HIGHEST'

    name: str  # of the config
    work_dir: str | None
    adapter: TaskAdapter
    loaders: Mapping[str, Mapping[str, Any]]  # the config of each phase's data loader
    datasets: Mapping[str, Sequence[DatasetAt]]  # of each phase
    metrics: Mapping[str, str]  # the annotation files that COCO's metrics read, by the metric's name in the config
    building: str = ''  # the part of the config that is built, if no more is, such as 'train_dataloader'
    checkpoint: str = ''  # its name, which is known when the runner is built
    location: str = ''
    begun: bool = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.location = self.checkpoint or self.location

    def before_train(self, runner: Runner) -> None:
        self.begun = True

    before_val = before_test = before_train

    def __enter__(self) -> 'ErrorExplainer':
        self.location, self.begun = self.name, False
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception):
            return
        self._explain_machine(error)
        if self.begun:
            self._explain_step(error)
            return
        methods = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
        part = self.building or next((part for name, part in _BUILT.items() if name in methods), '')
        if part.endswith('_dataloader') and (not isinstance(error, UserError) or error.__cause__):
            self._explain_data(part.removesuffix('_dataloader'), error)
        if isinstance(error, UserError) and not part:  # from a check, which names its location
            return
        with naming(': '.join(filter(None, (self.location, part))), Exception):
            versions.explain_import(error, 'this')
            raise error

    def _explain_machine(self, error: Exception) -> None:
        """Raises an error if another process has ended, or the memory does not suffice."""
        text, first = str(error), (message_of(error).splitlines() or [''])[0]
        if get_world_size() > 1 and isinstance(error, RuntimeError) and _GONE.search(text):
            raise ProcessGoneError(
                f'process {get_rank()} of {get_world_size()}: another process of this run has ended or does not answer '
                f'({first:.200})'
            ) from error
        if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _KILLED.search(text)):
            self._explain_loading(error)
        if isinstance(error, torch.cuda.OutOfMemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY in text):
            batch = self.loaders['train'].get('batch_size')
            now = f' (now {batch})' if batch else ''
            raise InputError(
                f'{self.location}: the memory does not suffice ({first:.120}): give smaller images (--size), a smaller '
                f'train_dataloader.batch_size{now}, or --amp'
            ) from error

    def _explain_loading(self, error: Exception) -> None:
        """Raises InputError for a process that loads images and was killed, or had no memory."""
        loops = [type(frame.f_locals.get('self')).__name__ for frame, _ in traceback.walk_tb(error.__traceback__)]
        is_in = (phase for phase in ('val', 'test') if any(f'{phase.title()}Loop' in name for name in loops))
        phase = next(is_in, 'train')
        workers = self.loaders[phase].get('num_workers') or 0
        if isinstance(error, MemoryError):
            what = f'the memory does not suffice to load an image ({message_of(error).splitlines()[-1]:.160})'
        elif _NO_SHARED_MEMORY.search(str(error)):
            what = 'a process that loads images was killed: the shared memory (/dev/shm) is full'
        else:
            what = 'a process that loads images was killed, as the system does when the memory is full'
        with suppress(ArgumentError):
            if self.begun and (saved := last_checkpoint(self.work_dir)):
                what += f'; {saved} is saved, and --resume goes on from there'
        raise InputError(
            f'{self.location}: {what}: give smaller images, or fewer processes by --cfg-options '
            f'{phase}_dataloader.num_workers={workers // 2} (now {workers})'
            + (f' {phase}_dataloader.persistent_workers=False' if workers == 1 else '')
        ) from error

    def _explain_data(self, phase: str, error: Exception) -> None:
        """Raises DatasetError if annotations or files of a phase are the reason why its dataset cannot be built."""
        is_empty = _NOTHING_LEFT in str(error)
        for dataset in self.datasets[phase]:
            if not dataset.is_leaf or not isinstance(dataset.cfg, Mapping):
                continue
            if dataset.ann_file and self.adapter.is_coco(dataset.cfg['type']):
                classes = self.adapter.classes(dataset.cfg)
                explain_coco(dataset.ann_file, classes, dataset.location, empty=is_empty)
            else:
                self.adapter.explain_data(dataset.cfg, dataset.location, empty=is_empty)
        if is_empty and self.datasets[phase]:
            what = 'paths, suffixes of files (img_suffix) or filters (filter_cfg)'
            location = self.datasets[phase][0].location
            raise DatasetError(f'{location}: no image is found, or none is left: see its {what}') from error

    def _explain_step(self, error: Exception) -> None:
        """Raises an error if a batch is too small for batch norm, or annotations are why an evaluation failed."""
        if isinstance(error, ValueError) and _ONE_VALUE in str(error):
            raise InputError(
                f'{self.location}: a batch has one image, and the network makes one pixel of it, of which batch norm '
                'learns nothing: give larger images (--size 64), or a train_dataloader.batch_size that leaves no '
                'single image for the end of an epoch, or train_dataloader.drop_last=True'
            ) from error
        kinds = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)
        if isinstance(error, UserError) or not isinstance(error, kinds):
            return
        for location, path in self.metrics.items():
            if Path(path).is_file():
                with naming(f'{location}.ann_file'):
                    check_measures(check_coco_file(path), path)
