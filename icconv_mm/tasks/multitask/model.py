"""One network for several tasks: one backbone and neck, and the heads of any of the task libraries."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dist import all_reduce, get_world_size
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, ModuleDict
from torch import Tensor, nn

from icconv_mm.errors import InputError, building
from icconv_mm.registry import MODELS, scoped
from icconv_mm.tasks.libraries import library_of, registered_class
from icconv_mm.tasks.multitask.balance import LossBalance
from icconv_mm.tasks.multitask.sample import MultiTaskSample
from icconv_mm.tasks.multitask.sharing import Memory, SharedFeatures, each_map, watch_gradient, zero_loss


@MODELS.register_module()
class MultiTaskModel(BaseModel):
    """One forward pass through backbone and neck, then the heads of every task.

    A task is a whole network of its library without a backbone: mmdet's detectors, mmseg's segmentors, mmpose's
    bottom-up estimators, mmpretrain's classifiers, or a class of one's own that has an attribute ``backbone`` and takes
    ``(inputs, data_samples, mode)``. It runs as it is, with :class:`SharedFeatures` in the place of its backbone, so
    losses, predictions and options are the library's own. Images that only one task looks at (mirrored, at another
    scale, a window of a sliding test) pass the backbone once more, for that task.

    An image takes part in the tasks that its sample has a field for. A task without any image in the batch adds a
    loss and gradients of exactly 0. In distributed training a task's losses are weighted by how many of its images
    this process has, so that the mean over the processes is the mean over all images. A head that itself averages
    over processes (mmdet's ATSS, FCOS, DETR, ...) needs images of its task in every process of a step: mmdet's
    ``MultiSourceSampler`` gives each the same share.

    The keys of a task's weights are those of its library behind ``tasks.NAME.``, those of backbone and neck the usual
    ones. ``init_cfg=dict(type='Pretrained', checkpoint=...)`` in a task, and with ``prefix='backbone.'`` or
    ``prefix='neck.'`` in backbone and neck, starts them from checkpoints of single-task networks.

    Args:
        backbone: Config of the backbone.
        tasks: Config of each task's network by name, without ``backbone``.
        neck: Config of the neck, or a list of configs to run in turn.
        loss_weights: See :class:`~icconv_mm.tasks.multitask.balance.LossBalance`.
        log_gradient_norms: Also log, as ``NAME.grad_norm``, the norm of the gradient that each task sends into the
            features that all share; multiplied by the loss scale in mixed precision with float16.
        data_preprocessor: Config of the preprocessor, :class:`MultiTaskDataPreprocessor` as a rule.
        init_cfg: mmengine initialisation.

    Raises:
        InputError: There is no task, a name cannot be used, or a task has no head or cannot be built.

    Example:
        >>> model = MODELS.build(dict(
        ...     type='icconv_mm.MultiTaskModel',
        ...     backbone=dict(type='icconv_mm.ICResNet', depth=18, pattern='geometric_d4'),
        ...     tasks=dict(semantic=dict(
        ...         type='mmseg.EncoderDecoder',
        ...         decode_head=dict(type='FCNHead', in_channels=512, in_index=3, channels=32, num_classes=7),
        ...         test_cfg=dict(mode='whole')))))
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        tasks: Mapping[str, Mapping[str, Any]],
        neck: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        loss_weights: Mapping[str, float] | str | None = None,
        log_gradient_norms: bool = False,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not tasks:
            raise InputError('model.tasks: no task')
        with building('model.backbone'):
            self.backbone = MODELS.build(backbone)
        with building('model.neck'):
            self.neck = MODELS.build(neck) if neck is not None else None
        self.tasks = ModuleDict({_usable(name): _build_task(name, cfg) for name, cfg in tasks.items()})
        self.balance = LossBalance(list(self.tasks), loss_weights)
        self.log_gradient_norms = log_gradient_norms
        self._memory = Memory(self._compute)
        for task in self.tasks.values():
            task.backbone.source = self._memory

    def extract_feat(self, inputs: Tensor) -> Any:
        """Features of [N, 3, H, W], as the neck gives them, or the backbone where there is no neck."""
        return self._memory(inputs)

    def _compute(self, inputs: Tensor) -> Any:
        features = self.backbone(inputs)
        return features if self.neck is None else self.neck(features)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[MultiTaskSample] | None = None, mode: str = 'tensor'
    ) -> dict | list[MultiTaskSample]:
        """As mmengine's ``BaseModel``.

        Args:
            inputs: [N, 3, H, W].
            data_samples: One data sample per image; needed for 'loss' and 'predict'.
            mode: 'loss' for a dict of losses, 'predict' for the samples with predictions, 'tensor' for what each task
                gives in this mode, by name.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode != 'tensor':
            raise InputError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        with self._memory.holding(inputs, self._compute(inputs)):
            return {name: task(inputs, _of_task(data_samples, name), mode) for name, task in self.tasks.items()}

    def loss(self, inputs: Tensor, data_samples: Sequence[MultiTaskSample]) -> dict[str, Tensor | list[Tensor]]:
        """Losses ``NAME.loss_x`` of all tasks, weighted, and what else the heads log."""
        losses: dict[str, Any] = {}
        features = self._compute(inputs)
        rows = {name: [i for i, sample in enumerate(data_samples) if name in sample] for name in self.tasks}
        shares = _shares([len(own) for own in rows.values()], inputs.device)
        for (name, own), share in zip(rows.items(), shares):
            if not own:
                # Of all parameters: what of the neck no other task reads has no other gradient.
                losses[f'{name}.loss_absent'] = zero_loss(list(self.parameters())).to(inputs.device)
                continue
            watched = features
            if self.log_gradient_norms:
                watched = watch_gradient(features, partial(_log_norm, name))
            found = self._run(name, inputs, watched, [data_samples[i].get(name) for i in own], own, 'loss')
            weight, more = self.balance(name)
            losses.update({f'{name}.{key}': _weighted(key, value, weight * share) for key, value in found.items()})
            losses.update({key: value * share if 'loss' in key else value for key, value in more.items()})
        return losses

    def predict(self, inputs: Tensor, data_samples: Sequence[MultiTaskSample]) -> Sequence[MultiTaskSample]:
        """The samples, in which those of the tasks hold predictions."""
        features = self._compute(inputs)
        for name in self.tasks:
            own = [i for i, sample in enumerate(data_samples) if name in sample]
            if not own:
                continue
            predicted = self._run(name, inputs, features, [data_samples[i].get(name) for i in own], own, 'predict')
            for i, sample in zip(own, predicted, strict=True):
                data_samples[i].set_field(sample, name)
        return data_samples

    def _run(self, name: str, inputs: Tensor, features: Any, samples: list, rows: list[int], mode: str) -> Any:
        """What a task makes of the images in ``rows``."""
        if len(rows) < len(inputs):
            inputs, features = inputs[rows], each_map(lambda value: value[rows], features)
        with self._memory.holding(inputs, features):
            return self.tasks[name](inputs, samples, mode)


def _usable(name: str) -> str:
    if not name.isidentifier() or hasattr(MultiTaskSample, name) or hasattr(nn.ModuleDict, name):
        raise InputError(f'model.tasks: {name!r} cannot be the name of a task; choose another identifier')
    return name


def _build_task(name: str, cfg: Mapping[str, Any]) -> nn.Module:
    """The network of a task, with its library as the default scope of what is in the config."""
    where = f'model.tasks.{name}'
    if not isinstance(cfg, Mapping) or not cfg:
        raise InputError(f'{where}: a task is the config of a network without backbone, got {cfg!r}')
    if 'backbone' in cfg:
        raise InputError(f'{where}.backbone: the backbone of all tasks is model.backbone')
    library = library_of(registered_class(MODELS, cfg.get('type'), f'{where}.type'))
    cfg = ConfigDict(copy.deepcopy(dict(cfg)), backbone=dict(type=scoped(SharedFeatures)))
    with building(where):
        task = MODELS.build(ConfigDict(cfg, _scope_=library) if library else cfg)
    if not isinstance(getattr(task, 'backbone', None), SharedFeatures):
        raise InputError(f'{where}: {type(task).__name__} does not keep what it gets as backbone in .backbone')
    if not any(True for _ in task.parameters()):
        given = ', '.join(key for key in cfg if key not in ('type', 'backbone')) or 'nothing'
        raise InputError(f'{where}: {type(task).__name__} has no head: its config has {given}')
    return task


def _of_task(data_samples: Sequence[MultiTaskSample] | None, name: str) -> list | None:
    return data_samples and [sample.get(name) for sample in data_samples]


def _shares(counts: list[int], device: torch.device) -> list[float]:
    """For each task this process's share of the images of all processes, times the number of processes."""
    if (processes := get_world_size()) == 1:
        return [1.0] * len(counts)
    totals = torch.tensor(counts, dtype=torch.float32, device=device)
    all_reduce(totals)
    return [count * processes / max(total, 1.0) for count, total in zip(counts, totals.tolist())]


def _weighted(key: str, value: Any, weight: float | Tensor) -> Any:
    """A loss times the weight of its task; what is only logged, such as an accuracy, as it is."""
    return each_map(lambda loss: loss * weight, value) if 'loss' in key else value


def _log_norm(name: str, norm: float) -> None:
    MessageHub.get_current_instance().update_scalar(f'train/{name}.grad_norm', norm)
