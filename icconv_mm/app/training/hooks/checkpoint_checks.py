"""Hooks that check datasets, checkpoints and images, and deploy the model before a test."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapperDict, _ParamScheduler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel

from icconv_mm.app.adapters.base import TaskAdapter, metainfo_of_built
from icconv_mm.app.adapters.choose import scope_and_adapter
from icconv_mm.checkpoints import metadata, reading, shipped
from icconv_mm.checkpoints.matching import check_covers, check_fits, fit_around_backbone
from icconv_mm.checkpoints.optimizer_state import match_optimizer
from icconv_mm.errors import InputError, naming
from icconv_mm.files import require_file
from icconv_mm.registry import HOOKS


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Checks the built model and the loaded checkpoint; mmengine accepts any and at best logs what it leaves out.

    Before the run: datasets that are empty or have other classes than the config, heads with another number of classes,
    pretrained weights that do not cover their module. After a checkpoint is read: whether it fits the model and, for a
    test or a resumed run, whether its classes have the labels of the dataset.

    Args:
        allow: Names of modules where differences are accepted, such as ``'roi_head.bbox_head'`` when the number of
            classes changes.
        name: Name of the checkpoint in the error.
        resume: Whether the run continues from the checkpoint: its counters, logs and best checkpoints are checked.
        task: The task's adapter; by default the adapter for the runner's config.

    Raises:
        DatasetError, InputError: The dataset is wrong, or the model cannot learn it.
        MissingFileError, ArchitectureMismatchError: Pretrained weights are missing, or keys or shapes differ elsewhere;
            the message lists them.
        InputError: The run cannot resume from the state in the checkpoint, or classes of the checkpoint have other
            labels in the dataset.
    """

    priority = 'HIGHEST'  # before hooks that change the checkpoint, such as the one for averaged weights

    def __init__(
        self,
        allow: Sequence[str] = (),
        name: str = 'the checkpoint',
        resume: bool = False,
        task: TaskAdapter | None = None,
    ) -> None:
        self.allow, self.name, self.resume, self.task = tuple(allow), name, resume, task

    def _task_of(self, runner: Runner) -> TaskAdapter:
        if self.task is None:  # the user's own config, run without this package's tools
            _, self.task = scope_and_adapter(runner.cfg)
        return self.task

    def before_run(self, runner: Runner) -> None:
        """Checks datasets, heads and pretrained weights after they are built; most runs have read no checkpoint yet."""
        model = unwrapped(runner.model)
        for phase in ('train', 'val', 'test'):
            if isinstance(loop := getattr(runner, f'_{phase}_loop', None), BaseLoop):
                task, dataset = self._task_of(runner), loop.dataloader.dataset
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
        if shipped.is_address(self.name):
            model = runner.model if is_sharded else unwrapped(runner.model)
            left = fit_around_backbone(model, checkpoint, self.name)
            but = f' but {", ".join(left)}, which start from random numbers' if left else ''
            runner.logger.info(f'weights: {self.name} for all of the network{but}')
        if is_sharded and not is_main_process():
            runner.model.state_dict()  # gathers shards for the main process, which checks
        else:
            check_fits(runner.model if is_sharded else unwrapped(runner.model), checkpoint, self.name, self.allow)
        with naming(self.name):
            if self.resume:
                _check_resumable(runner, checkpoint)
            for phase in ('train',) * self.resume + ('test',):
                if isinstance(loop := getattr(runner, f'_{phase}_loop', None), BaseLoop):
                    _check_labels(self._task_of(runner), checkpoint, loop.dataloader.dataset, f'{phase}_dataloader')


def _check_labels(task: TaskAdapter, checkpoint: dict, dataset: Any, where: str) -> None:
    """Raises InputError if a class has one label in the checkpoint and another in the dataset."""
    learned = task.parts(task.dataset_meta(checkpoint))
    for part, (adapter, meta) in task.parts(dict(metainfo_of_built(dataset))).items():
        names = adapter.class_names(meta)
        for label, name in enumerate(adapter.class_names(learned[part][1])):
            if name in names and name not in names[label : label + 1]:  # ImageNet repeats some names
                raise InputError(
                    f'{name!r} was learned with label {label}, but has label {names.index(name)} in {where}.dataset: '
                    'set metainfo=dict(classes=...) in the order of the training'
                )


def unwrapped(model: nn.Module) -> nn.Module:
    """Returns the model without the wrappers of distributed training and test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_pretrained(model: nn.Module) -> None:
    """Raises an error if pretrained weights, local or of this package, are missing or of another architecture.

    mmengine loads the weights that fit, and only logs the others.
    """
    for name, module in model.named_modules():
        inits = getattr(module, 'init_cfg', None) or []
        for init in [inits] if isinstance(inits, Mapping) else inits:
            path = init.get('checkpoint') if init.get('type') == 'Pretrained' else None
            if path is not None and ('://' not in path or shipped.is_address(path)):
                file = shipped.path_of(path) if shipped.is_address(path) else Path(path).expanduser()
                require_file(file, f'{name or "model"}.init_cfg.checkpoint')
                check_covers(module, reading.read(file), path, init.get('prefix'))


def _check_resumable(runner: Runner, checkpoint: dict) -> None:
    """Raises InputError unless the runner can resume from the checkpoint; the runner has built its loop by then."""
    loop = runner.train_loop
    epochs = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else None
    iters = getattr(loop, 'max_iters', None) if epochs is None else None
    metadata.check_progress(checkpoint, epochs, iters)
    _match_optimizers(runner, checkpoint)
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
    folder = Path(runner.work_dir)
    outs = [
        Path(hook.out_dir, folder.name) for hook in runner.hooks if isinstance(hook, CheckpointHook) and hook.out_dir
    ]
    for path in metadata.check_message_hub(checkpoint, [folder, *outs]):
        runner.logger.warning(f'the best checkpoint so far, {path}, is not of this work folder: it stays where it is')


def _match_optimizers(runner: Runner, checkpoint: dict) -> None:
    """Checks the state of the optimizers, and says which options of the config replace those of the checkpoint."""
    if 'optimizer' not in checkpoint:
        runner.logger.warning('the checkpoint has no state of the optimizer, which starts anew')
        return
    optim_wrapper, states, schedulers = runner.optim_wrapper, checkpoint['optimizer'], runner.param_schedulers
    wrappers, is_sharded = {'': optim_wrapper}, isinstance(runner.model, FullyShardedDataParallel)
    if isinstance(optim_wrapper, OptimWrapperDict):
        wrappers, states = dict(optim_wrapper.items()), metadata.mapping(states, 'optimizer')
        if states.keys() != wrappers.keys():
            raise InputError(f'optimizer has {", ".join(map(str, states))}, expected {", ".join(wrappers)}')
    for name, wrapper in wrappers.items():
        if not isinstance(getattr(wrapper, 'optimizer', None), torch.optim.Optimizer):
            continue
        of_it = schedulers.get(name) if isinstance(schedulers, Mapping) and name else schedulers
        scheduled = {wrapper.param_name for wrapper in of_it or () if isinstance(wrapper, _ParamScheduler)}
        scheduled |= {'betas'} if 'momentum' in scheduled else set()
        state, location = (states[name], f'optimizer.{name}') if name else (states, 'optimizer')
        if changed := match_optimizer(wrapper, state, scheduled, location, is_sharded):
            runner.logger.warning(f'{location} goes on with {"; ".join(changed)}')


def _batch_size(runner: Runner) -> int | None:
    """Returns the number of images per iteration over all processes; None if the data loader has no batch size."""
    batch_size = getattr(getattr(runner.train_loop.dataloader, 'batch_sampler', None), 'batch_size', None)
    return batch_size and batch_size * get_world_size()


def _source(evaluator: Any, i: int) -> str:
    """Returns the annotation file of a metric in the evaluator's config, or ``'the file'``."""
    metrics = evaluator.get('metrics', evaluator) if isinstance(evaluator, Mapping) else evaluator
    metric = next(iter(metrics[i : i + 1]), None) if isinstance(metrics, (list, tuple)) else metrics
    while isinstance(metric, Mapping):
        if metric.get('ann_file'):
            return str(metric['ann_file'])
        metric = metric.get('metric')  # nested in a TaskMetric
    return 'the file'


class ImageCheckHook(Hook):
    """Rejects images that do not fit the model's mean and std: another number of channels, or values from 0 to 1.

    Raises:
        InputError: An image does not fit; the message names it.
    """

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        mean = getattr(getattr(unwrapped(runner.model), 'data_preprocessor', None), 'mean', None)
        images = data_batch.get('inputs') if isinstance(data_batch, Mapping) else None
        if not isinstance(mean, torch.Tensor) or not isinstance(images, (torch.Tensor, list)):
            return
        if not len(images) or not all(isinstance(image, torch.Tensor) and image.ndim == 3 for image in images):
            return  # test-time augmentation at several scales
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
