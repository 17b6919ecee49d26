"""Turns the exceptions of a run into messages, in one place."""

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from icconv_mm import versions
from icconv_mm.app.runs.config import TaskRun
from icconv_mm.config_tree import join_root, kind_of, walk
from icconv_mm.datasets.checks import DatasetError, check_coco_file, check_measures, explain_coco
from icconv_mm.errors import ArgumentError, InputError, UserError, message_of, naming
from icconv_mm.run_folder import last_checkpoint

# The part of a config that each of mmengine's methods builds. They are found in the traceback; without them, the user
# of a long config would not learn which part of it cannot be built.
_BUILT = {
    'build_model': 'model',
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


class Progress(Hook):
    """Records how far a run has come, and the file of an error: the config's, then the checkpoint's.

    Args:
        location: Name of the config.
        checkpoint: Name of the checkpoint, which is known when the run is prepared.
    """

    priority = 'HIGHEST'

    def __init__(self, location: str, checkpoint: str = '') -> None:
        self.location, self.checkpoint = location, checkpoint
        self.begun = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.location = self.checkpoint or self.location

    def before_train(self, runner: Runner) -> None:
        self.begun = True

    before_val = before_test = before_train


@contextmanager
def boundary(run: TaskRun, building: str = '') -> Iterator[Progress]:
    """Turns the exceptions of a run into errors that say where to look.

    Until the first step, an exception is the fault of the config or of a file that it names. Later, it is a bug, except
    for annotations that a metric cannot read, batches too small for batch norm or too large for the memory, and another
    process that has ended.

    Args:
        run: The run.
        building: The part of the config that is built, if no more is, such as ``'train_dataloader'``.

    Yields:
        A hook for the runner that records how far the run has come.

    Raises:
        DatasetError: A dataset or metric cannot read an annotation file, or no image is left.
        ProcessGoneError: Communication with another process of the run fails.
        InputError: A part of the config cannot be built or loaded, or the memory does not suffice.
    """
    progress = Progress(run.name)
    try:
        yield progress
    except Exception as error:
        if get_world_size() > 1 and isinstance(error, RuntimeError) and _GONE.search(str(error)):
            raise ProcessGoneError(
                f'process {get_rank()} of {get_world_size()}: another process of this run has ended or does not answer '
                f'({message_of(error).splitlines()[0]:.200})'
            ) from error
        _explain_loading(run, progress, error)
        if isinstance(error, torch.cuda.OutOfMemoryError) or (
            isinstance(error, RuntimeError) and _NO_MEMORY in str(error)
        ):
            batch = (run.cfg.get('train_dataloader') or {}).get('batch_size')
            now = f' (now {batch})' if batch else ''
            raise InputError(
                f'{progress.location}: the memory does not suffice ({message_of(error).splitlines()[0]:.120}): give '
                f'smaller images (--size), a smaller train_dataloader.batch_size{now}, or --amp'
            ) from error
        if progress.begun:
            if isinstance(error, ValueError) and _ONE_VALUE in str(error):
                raise InputError(
                    f'{progress.location}: a batch has one image, and the network makes one pixel of it, of which '
                    'batch norm learns nothing: give larger images (--size 64), or a train_dataloader.batch_size that '
                    'leaves no single image for the end of an epoch, or train_dataloader.drop_last=True'
                ) from error
            _explain_metrics(run, error)
            raise
        methods = {frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)}
        part = building or next((part for name, part in _BUILT.items() if name in methods), '')
        if part.endswith('_dataloader') and (not isinstance(error, UserError) or error.__cause__):
            _explain_data(run, part.removesuffix('_dataloader'), error)
        if isinstance(error, UserError) and not part:  # from a check, which names its location
            raise
        with naming(': '.join(filter(None, (progress.location, part))), Exception), versions.explaining_imports('this'):
            raise


def _explain_loading(run: TaskRun, progress: Progress, error: Exception) -> None:
    """Raises InputError if a process that loads images was killed, or had no memory."""
    text = str(error)
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and _KILLED.search(text)):
        return
    loops = [type(frame.f_locals.get('self')).__name__ for frame, _ in traceback.walk_tb(error.__traceback__)]
    phase = next((each for each in ('val', 'test') if any(f'{each.title()}Loop' in name for name in loops)), 'train')
    workers = (run.cfg.get(f'{phase}_dataloader') or {}).get('num_workers') or 0
    if isinstance(error, MemoryError):
        what = f'the memory does not suffice to load an image ({message_of(error).splitlines()[-1]:.160})'
    elif _NO_SHARED_MEMORY.search(text):
        what = 'a process that loads images was killed: the shared memory (/dev/shm) is full'
    else:
        what = 'a process that loads images was killed, as the system does when the memory is full'
    with suppress(ArgumentError):
        if (saved := last_checkpoint(run.cfg.work_dir)) and progress.begun:
            what += f'; {saved} is saved, and --resume goes on from there'
    raise InputError(
        f'{progress.location}: {what}: give smaller images, or fewer processes by --cfg-options '
        f'{phase}_dataloader.num_workers={workers // 2} (now {workers})'
        + (f' {phase}_dataloader.persistent_workers=False' if workers == 1 else '')
    ) from error


def _explain_data(run: TaskRun, phase: str, error: Exception) -> None:
    """Raises DatasetError if the annotations or files of a phase are the reason why its dataset cannot be built."""
    is_empty = _NOTHING_LEFT in str(error)
    leaves = [(each.location, each.cfg) for each in run.datasets[phase] if each.is_leaf]
    for location, leaf in leaves:
        if isinstance(leaf, Mapping) and leaf.get('ann_file') and run.adapter.is_coco(leaf['type']):
            path = join_root(leaf.get('data_root') or '', leaf['ann_file'])
            explain_coco(path, run.adapter.classes(leaf), location, empty=is_empty)
        elif isinstance(leaf, Mapping):
            run.adapter.explain_data(leaf, location, empty=is_empty)
    if is_empty and run.datasets[phase]:
        what = 'paths, suffixes of files (img_suffix) or filters (filter_cfg)'
        location = run.datasets[phase][0].location
        raise DatasetError(f'{location}: no image is found, or none is left: see its {what}') from error


def _explain_metrics(run: TaskRun, error: Exception) -> None:
    """Raises DatasetError if annotations are the reason why an evaluation failed."""
    kinds = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)
    if isinstance(error, UserError) or not isinstance(error, kinds):
        return
    for part in ('val_evaluator', 'test_evaluator'):
        for location, metric in walk(run.cfg.get(part), part):
            if 'Coco' in kind_of(metric) and metric.get('ann_file') and Path(metric['ann_file']).is_file():
                with naming(f'{location}.ann_file'):
                    check_measures(check_coco_file(metric['ann_file']), metric['ann_file'])
