"""Hooks, in the order of a run: what is built and loaded is checked, saved whole, resumed as it was, deployed."""

import os
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, get_world_size, is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict, ZeroRedundancyOptimizer
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from icconv_mm.checkpoints import metadata, reading
from icconv_mm.checkpoints.matching import check_covers, check_fits
from icconv_mm.data.tree import as_list, dicts_in
from icconv_mm.errors import InputError, naming
from icconv_mm.files import command_of, require_file, whole_file
from icconv_mm.inference import deploy
from icconv_mm.registry import HOOKS
from icconv_mm.tasks.task import TaskAdapter, adapter_for, metainfo_of_built


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Checks what was built and what is loaded, where mmengine takes anything and at best logs what it leaves out.

    Before the run: datasets that are empty or have other classes than the config, heads with another number of classes,
    pretrained weights that do not cover their module. When a checkpoint is read: whether it fits the model and, to test
    or to resume, whether its classes have the labels of the data.

    Args:
        allow: Names of modules where differences are accepted, such as ``'roi_head.bbox_head'`` when the number of
            classes changes.
        name: Name of the checkpoint in the error.
        resume: Whether the run continues from the checkpoint: its counters, logs and best checkpoints are checked.

    Raises:
        DatasetError, InputError: Data cannot be right, or the model cannot learn them.
        MissingFileError, ArchitectureMismatchError: Pretrained weights are missing, or keys or shapes differ elsewhere;
            the message lists them.
        InputError: The run is to continue from the checkpoint, and what it says about the run cannot be; or classes of
            the checkpoint have other labels in the data.
    """

    priority = 'HIGHEST'  # before hooks that change the checkpoint, such as the one for averaged weights

    def __init__(self, allow: Sequence[str] = (), name: str = 'the checkpoint', resume: bool = False) -> None:
        self.allow = tuple(allow)
        self.name = name
        self.resume = resume

    def before_run(self, runner: Runner) -> None:
        """A runner calls it when all is built; most have read no checkpoint yet."""
        model, task = unwrapped(runner.model), adapter_for(runner.cfg)
        for phase in ('train', 'val', 'test'):
            if isinstance(loop := getattr(runner, f'_{phase}_loop', None), BaseLoop):
                dataset = loop.dataloader.dataset
                task.check(model, dataset, f'{phase}_dataloader.dataset', training=phase == 'train')
                for i, metric in enumerate(loop.evaluator.metrics if phase != 'train' else ()):
                    where, source = f'{phase}_evaluator', _source(runner.cfg.get(f'{phase}_evaluator'), i)
                    task.check_metric(metric, metainfo_of_built(dataset), where, source)
        if isinstance(runner._train_loop, BaseLoop):
            check_pretrained(model)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta']['batch_size'] = _batch_size(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        is_sharded = isinstance(runner.model, FullyShardedDataParallel)
        if is_sharded and not is_main_process():
            runner.model.state_dict()  # gathers shards for the main process, which checks
        else:
            check_fits(runner.model if is_sharded else unwrapped(runner.model), checkpoint, self.name, self.allow)
        with naming(self.name):
            if self.resume:
                _check_resumable(runner, checkpoint)
            for phase in ('train',) * self.resume + ('test',):
                if isinstance(loop := getattr(runner, f'_{phase}_loop', None), BaseLoop):
                    _check_labels(adapter_for(runner.cfg), checkpoint, loop.dataloader.dataset, f'{phase}_dataloader')


def _check_labels(task: TaskAdapter, checkpoint: dict, dataset: Any, where: str) -> None:
    """Raise InputError for a class that has one label in the checkpoint and another in the data."""
    learned = task.parts(task.dataset_meta(checkpoint, Config()))
    for part, (adapter, meta) in task.parts(dict(metainfo_of_built(dataset))).items():
        names = adapter.class_names(meta)
        for label, name in enumerate(adapter.class_names(learned[part][1])):
            if name in names and name not in names[label : label + 1]:  # ImageNet has names twice
                raise InputError(
                    f'{name!r} was learned with label {label}, but has label {names.index(name)} in {where}.dataset: '
                    'set metainfo=dict(classes=...) in the order of the training'
                )


class FiniteLossHook(Hook):
    """Ends a training whose loss is not finite: from then on no weight is, and what follows is for nothing.

    Raises:
        InputError: With iteration, losses, pictures, and where to look.
    """

    priority = 'VERY_HIGH'  # before the log and the checkpoints

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        values = {name: torch.as_tensor(value).detach() for name, value in (outputs or {}).items() if 'loss' in name}
        bad = {name: value.tolist() for name, value in values.items() if not bool(torch.isfinite(value).all())}
        if not bad:
            return
        losses = ', '.join(f'{name} {value}' for name, value in bad.items() if name != 'loss' or len(bad) == 1)
        pictures = ', '.join(_pictures_of(data_batch)) or 'unknown'
        rates = {rate for group in runner.optim_wrapper.get_lr().values() for rate in group}
        raise InputError(
            f'iteration {runner.iter + 1}: {losses}; pictures of the batch: {pictures}. Look at the labels of these '
            f'({command_of("prepare_data", "DATA")} lists boxes without an area), lower the learning rate '
            f'({max(rates, default=0):g} now), or leave out --amp; --keep-going passes over it'
        )


def _pictures_of(batch: Any) -> list[str]:
    """The paths of the pictures of a batch, as the libraries' data samples have them."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    return [str(path) for each in samples or () if (path := getattr(each, 'img_path', None))]


def unwrapped(model: nn.Module) -> nn.Module:
    """A model without what distributed training or test-time augmentation puts around it."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_pretrained(model: nn.Module) -> None:
    """Raise for a local file of pretrained weights that is missing or of another architecture.

    mmengine loads what fits of it, and says the rest in the log.
    """
    for name, module in model.named_modules():
        for init in as_list(getattr(module, 'init_cfg', None) or []):
            path = init.get('checkpoint') if init.get('type') == 'Pretrained' else None
            if path is not None and '://' not in path:
                require_file(Path(path).expanduser(), f'{name or "model"}.init_cfg.checkpoint')
                check_covers(module, reading.load(path), path, init.get('prefix'))


def _check_resumable(runner: Runner, checkpoint: dict) -> None:
    """Raise InputError unless the runner can continue from a checkpoint; it has its loop by now."""
    loop = runner.train_loop
    epochs = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else None
    iters = getattr(loop, 'max_iters', None) if epochs is None else None
    metadata.check_progress(checkpoint, epochs, iters)
    meta = checkpoint['meta']
    if epochs is not None and meta['iter'] != meta['epoch'] * len(loop.dataloader):
        runner.logger.warning(
            f'{meta["epoch"]} epochs of the checkpoint had {meta["iter"]} iterations, here an epoch has '
            f'{len(loop.dataloader)} (another batch size, number of processes or set of images): schedules that count '
            'iterations, such as a warm-up, go on as they were planned before'
        )
    before, now = meta.get('batch_size'), _batch_size(runner)
    if epochs is None and None not in (before, now) and before != now:
        runner.logger.warning(
            f'an iteration of the checkpoint had {before} images, here it has {now} (another batch size or number of '
            'processes): other images follow than without the interruption, and the learning rate and its schedule '
            'stay as they were planned before'
        )
    outs = [hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.out_dir]
    for path in metadata.check_message_hub(checkpoint, [Path(folder) for folder in (runner.work_dir, *outs)]):
        runner.logger.warning(f'the best checkpoint so far, {path}, is not of this work folder: it stays where it is')


def _batch_size(runner: Runner) -> int | None:
    """Images of an iteration of all processes; None where a loader does not say."""
    own = getattr(getattr(runner.train_loop.dataloader, 'batch_sampler', None), 'batch_size', None)
    return own and own * get_world_size()


def _source(evaluator: Any, i: int) -> str:
    """The annotation file of a metric by the config of the evaluator, if it says one."""
    metrics = as_list(evaluator.get('metrics', evaluator) if isinstance(evaluator, Mapping) else evaluator)
    files = (node['ann_file'] for node in dicts_in(metrics[i : i + 1]) if node.get('ann_file'))
    return str(next(files, 'the file'))


class ImageCheckHook(Hook):
    """Refuses images that the mean and std of the model are not for: other channels, or of 0 to 1.

    Raises:
        InputError: Naming the image.
    """

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        mean = getattr(getattr(unwrapped(runner.model), 'data_preprocessor', None), 'mean', None)
        images = data_batch.get('inputs') if isinstance(data_batch, Mapping) else None
        if not isinstance(mean, torch.Tensor) or not isinstance(images, (torch.Tensor, list)):
            return
        if not len(images) or not all(isinstance(image, torch.Tensor) and image.ndim == 3 for image in images):
            return  # copies at several scales
        samples = data_batch.get('data_samples') or ()
        for i, image in enumerate(images):
            if mean.numel() > 1 and len(image) != mean.numel():
                raise InputError(
                    f'{_name(samples, i)}: {len(image)} channels, but model.data_preprocessor.mean has {mean.numel()}: '
                    "color_type='color' of LoadImageFromFile reads 3, other transforms can choose some"
                )
        if batch_idx == 0 and images[0].is_floating_point() and mean.max() > 1:
            highest = max(float(image.max()) for image in images)
            if 0 < highest <= 1:
                raise InputError(
                    f'{_name(samples, 0)}: pixels up to {highest:.3g}, but model.data_preprocessor.mean is up to '
                    f'{float(mean.max()):.5g}: give mean and std in the units of the images'
                )


def _name(samples: Sequence[Any], i: int) -> str:
    return getattr(samples[i], 'img_path', None) or f'image {i}' if i < len(samples) else f'image {i}'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which deletes the old file before it writes the new one, in the other order.

    A checkpoint is written beside its place, flushed to the disk and renamed; then ``last_checkpoint`` names it, and
    only then are older ones deleted. So a run that is killed while it saves, or whose disk is full, leaves the one
    before. Folders on a storage backend (``s3://``) are left to mmengine.

    Raises:
        InputError: The file cannot be written, such as on a full disk; the message names it.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        words = [secrets.token_hex(8)]  # of a run, in names that nobody else writes to
        broadcast_object_list(words)
        self._part = f'.{words[0]}.part'

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        if not isinstance(self.file_backend, LocalBackend):
            return super()._save_checkpoint_with_step(runner, step, meta)
        surplus = self._keep(runner, step)
        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        options = dict(save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler, meta=meta)
        saving = runner if isinstance(runner, _Saving) else _Saving(runner, self._part)
        saving.save_checkpoint(
            self.out_dir, filename, by_epoch=self.by_epoch, backend_args=self.backend_args, **options, **self.args
        )
        if not is_main_process():
            return None
        with whole_file(Path(runner.work_dir, 'last_checkpoint')) as file:
            file.write(self.last_ckpt.encode())
        for old in surplus:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of deepspeed
                self.file_backend.rmtree(path)
        return None

    def _keep(self, runner: Runner, step: int) -> list[int]:
        """Enter a step among those to keep; returns those that are too many."""
        if self.max_keep_ckpts < 1 or (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            return []
        surplus = [self.keep_ckpt_ids.popleft()] if len(self.keep_ckpt_ids) == self.max_keep_ckpts else []
        self.keep_ckpt_ids.append(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        return [old for old in surplus if old != step]

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        wanted = [key for key in getattr(self, 'key_indicators', ()) or () if key != 'auto']
        if metrics and (absent := [key for key in wanted if key not in metrics]):  # mmdet's, where nothing is detected
            why = 'nothing was found, or nothing is annotated'
            runner.logger.info(f'no best checkpoint is chosen: this validation has no {", ".join(absent)} ({why})')
            return None
        if not isinstance(self.file_backend, LocalBackend):
            return super()._save_best_checkpoint(runner, metrics)
        with self._deleting_later():
            super()._save_best_checkpoint(_Saving(runner, self._part), metrics)
        return None

    @contextmanager
    def _deleting_later(self) -> Iterator[None]:
        """mmengine removes the best checkpoint so far before it saves the new one: let it be removed afterwards."""
        backend, later = self.file_backend, _DeletingLater()
        self.file_backend = later
        try:
            yield
        finally:
            self.file_backend = backend
        saved = {getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()}
        for path in later.deleted:
            if path not in saved and backend.isfile(path):
                backend.remove(path)


class _DeletingLater(LocalBackend):
    """A local backend that takes down what is to be removed."""

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[str] = []

    def remove(self, filepath: str) -> None:
        self.deleted.append(filepath)


class _Saving:
    """A runner whose ``save_checkpoint`` writes beside the place, to a name that ends so, flushes and renames."""

    def __init__(self, runner: Runner, ending: str) -> None:
        self._runner, self._ending = runner, ending

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: Any = None, **options: Any) -> None:
        place, part = Path(out_dir, filename), Path(out_dir, f'.{filename}{self._ending}')
        try:
            with naming(str(place), OSError):
                if options.get('save_optimizer', True) and not is_main_process():
                    _send_shards(self._runner.optim_wrapper)
                self._runner.save_checkpoint(out_dir, part.name, **options)
                if is_main_process():
                    _flush(part)
                    part.replace(place)
                    _flush(place.parent)
        except BaseException:
            if is_main_process() and part.is_file():
                part.unlink()
            raise


def _send_shards(wrapper: OptimWrapper | OptimWrapperDict) -> None:
    """What the main process waits for when it saves: mmengine has it alone ask for the parts of a sharded optimiser."""
    for each in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
        if isinstance(each.optimizer, ZeroRedundancyOptimizer):
            each.optimizer.consolidate_state_dict()


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@HOOKS.register_module()
class ResumableRandomnessHook(Hook):
    """Make a resumed run continue as if it had never stopped.

    mmengine restores weights, optimiser and schedules, and advances the data to where it was, but the random generators
    start anew. This hook restarts them at fixed points, from a seed derived from the run's seed and the number of the
    epoch or iteration. What follows such a point no longer depends on what came before it:

    * in epoch-based runs at every epoch after the first, in this process and in the workers of the data loader. Workers
      that persist are restarted, which is the only way to reach their generators;
    * in iteration-based runs every ``interval`` iterations. The workers' generators need no help there: mmengine
      replays all data from the start.

    Before the first of these points, a run draws the same numbers as without the hook.

    Args:
        interval: Iterations between restarts in iteration-based runs; by default the interval of the checkpoints.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int | None = None) -> None:
        if interval is not None and interval < 1:
            raise InputError(f'ResumableRandomnessHook: interval must be positive, got {interval}')
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        loop, interval = runner.train_loop, self.interval or checkpoint_interval(runner)
        if interval and not isinstance(loop, EpochBasedTrainLoop) and hasattr(loop, 'dataloader_iterator'):
            loop.dataloader_iterator = _RestartingIterator(loop.dataloader_iterator, interval, runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and runner.epoch > 0:
            seed = derived_seed(runner.seed, runner.epoch)
            restart_generators(seed)
            _restart_workers(runner.train_dataloader, seed)


class _RestartingIterator:
    """Restarts the generators before every ``interval``-th batch is loaded.

    It counts batches from the start of the run, also while mmengine skips those that a resumed run has seen.
    """

    def __init__(self, iterator, interval: int, seed: int) -> None:
        self._iterator = iterator
        self._interval = interval
        self._seed = seed
        self._count = 0

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        if self._count and self._count % self._interval == 0:
            restart_generators(derived_seed(self._seed, self._count))
        self._count += 1
        return next(self._iterator)

    def skip_iter(self, num_iters: int) -> None:
        """What onedl-mmengine calls to resume. It would not load what it skips; the workers' generators need that."""
        for _ in range(num_iters):
            next(self)


def checkpoint_interval(runner: Runner) -> int | None:
    """Iterations between two checkpoints of an iteration-based run, if it writes any."""
    saving = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch)
    return next((hook.interval for hook in saving if hook.interval > 0), None)


def derived_seed(seed: int, position: int) -> int:
    """A 32-bit seed for a position (epoch or iteration) of the run that was started with ``seed``."""
    return int(np.random.SeedSequence([seed, position]).generate_state(1)[0])


def restart_generators(seed: int) -> None:
    """Seed the generators of Python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _restart_workers(loader: torch.utils.data.DataLoader, seed: int) -> None:
    """Let the workers of the next epoch start with generators derived from ``seed``.

    mmengine seeds a worker through the loader's ``worker_init_fn``, with the same seed in every epoch. Another function
    given by the config is left alone.
    """
    init = loader.worker_init_fn
    if isinstance(init, partial) and 'seed' in init.keywords:
        loader.worker_init_fn = partial(init.func, *init.args, **{**init.keywords, 'seed': seed % 2**31})
    if loader.persistent_workers and loader._iterator is not None:
        loader._iterator = None  # persistent workers live in it; the loader makes a new one for the next epoch


@HOOKS.register_module()
class DeployHook(Hook):
    """Deploys the model (``icconv_mm.deploy``) in the runner before a test.

    By then the checkpoint is loaded and, where weights are averaged, the averages are in their place.
    """

    priority = 'LOWEST'

    def before_test_epoch(self, runner: Runner) -> None:
        runner.model = deploy(runner.model)
