"""One network for several tasks: one backbone and neck, and the heads of any of the task libraries.

The gradients of their losses for the shared features are measured and combined.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import combinations
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, ModuleDict
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from icconv_mm.errors import InputError, MissingLibraryError, naming
from icconv_mm.registry import MODELS, scoped
from icconv_mm.tasks.check_levels import each_map, maps_of
from icconv_mm.tasks.libraries import library_of, registered_class

# Meta information of a sample: whether its annotations are in pixels of the file, as its image was resized before them.
LABELS_OF_FILE = 'labels_of_file'
# For weights from 5e-5 to 2e4.
MOST_LOG_VARIANCE = 10.0


class MultiTaskSample(BaseDataElement):
    """One data sample per task, each of the task's own library, as a field with the task's name.

    A task without annotations of the image has no field. The meta information is what all tasks share: ``img_path``,
    ``img_id``, ``ori_shape`` and ``img_shape``.

    Example:
        >>> from mmdet.structures import DetDataSample
        >>> sample = MultiTaskSample(boxes=DetDataSample(), metainfo=dict(img_path='1.jpg'))
        >>> 'boxes' in sample, 'keypoints' in sample
        (True, False)
    """


@MODELS.register_module()
class MultiTaskModel(BaseModel):
    """Runs backbone and neck once, then the heads of every task.

    A task is a whole network of its library without a backbone: mmdet's detectors, mmseg's segmentors, mmpose's
    bottom-up estimators, mmpretrain's classifiers, or a custom class that has an attribute ``backbone`` and takes
    ``(inputs, data_samples, mode)``. It runs as it is, with :class:`SharedFeatures` in place of its backbone, so
    losses, predictions and options are the library's own. Images that only one task uses (flipped, at another scale, a
    window of a sliding test) pass the backbone again, for that task.

    An image takes part in the tasks that its sample has a field for. A task without any image in the batch adds a
    loss and gradients of exactly 0. In distributed training, a task's losses are weighted by how many of its images
    this process has, so that the mean over the processes is the mean over all images. A head that itself averages
    over processes (mmdet's ATSS, FCOS, DETR, ...) needs images of its task in every process of a step: mmdet's
    ``MultiSourceSampler`` gives each the same share.

    The keys of a task's weights are those of its library after ``tasks.NAME.``, those of backbone and neck the usual
    ones. ``init_cfg=dict(type='Pretrained', checkpoint=...)`` in a task, and with ``prefix='backbone.'`` or
    ``prefix='neck.'`` in backbone and neck, initialises them from checkpoints of single-task networks.

    Args:
        backbone: Config of the backbone.
        tasks: Config of each task's network by name, without ``backbone``.
        neck: Config of the neck, or a list of configs to run in turn.
        loss_weights: See :class:`~icconv_mm.tasks.multitask.model.LossBalance`.
        aggregator, log_gradients: How the tasks' gradients for the shared features are combined, and whether they are
            logged. See :class:`~icconv_mm.tasks.multitask.model.SharedGradient`.
        data_preprocessor: Config of the preprocessor, usually :class:`MultiTaskDataPreprocessor`.
        init_cfg: mmengine initialisation.

    Raises:
        InputError: If ``tasks`` is empty, a name is unusable, or a task has no head or cannot be built.

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
        aggregator: str | None = None,
        log_gradients: bool = False,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        if not tasks:
            raise InputError('model.tasks: no task')
        with naming('model.backbone', Exception):
            self.backbone = MODELS.build(backbone)
        with naming('model.neck', Exception):
            self.neck = MODELS.build(neck) if neck is not None else None
        self.tasks = ModuleDict({name: _build_task(name, cfg) for name, cfg in tasks.items()})
        self.balance = LossBalance(list(self.tasks), loss_weights)
        self.gradient = SharedGradient(aggregator, log_gradients)
        self._memory = Memory(self._compute)
        for task in self.tasks.values():
            task.backbone.source = self._memory

    def extract_feat(self, inputs: Tensor) -> Any:
        """Returns the features of [N, 3, H, W] from the neck, or from the backbone if there is no neck."""
        return self._memory(inputs)

    def _compute(self, inputs: Tensor) -> Any:
        features = self.backbone(inputs)
        return features if self.neck is None else self.neck(features)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[MultiTaskSample] | None = None, mode: str = 'tensor'
    ) -> dict | list[MultiTaskSample]:
        """Runs the network, as mmengine's ``BaseModel``.

        Args:
            inputs: [N, 3, H, W].
            data_samples: One data sample per image; needed for 'loss' and 'predict'.
            mode: 'loss' for a dict of losses, 'predict' for the samples with predictions, 'tensor' for each task's
                output in this mode, by name.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode != 'tensor':
            raise InputError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")
        with self._memory.holding(inputs, self._compute(inputs)):
            samples = {name: data_samples and [sample.get(name) for sample in data_samples] for name in self.tasks}
            return {name: task(inputs, samples[name], mode) for name, task in self.tasks.items()}

    def loss(self, inputs: Tensor, data_samples: Sequence[MultiTaskSample]) -> dict[str, Tensor | list[Tensor]]:
        """Returns the weighted losses ``NAME.loss_x`` of all tasks, and other values that the heads log."""
        losses: dict[str, Any] = {}
        features = self.gradient.share(self._compute(inputs), list(self.tasks))
        rows = {name: [i for i, sample in enumerate(data_samples) if name in sample] for name in self.tasks}
        shares = _shares([len(losses) for losses in rows.values()], inputs.device)
        for (name, losses_of_task), share in zip(rows.items(), shares):
            if not losses_of_task:
                # Of all parameters: those of the neck that only this task reads have no other gradient.
                reached = [*self.parameters(), *(maps_of(features[name]) if self.gradient.is_active else ())]
                losses[f'{name}.loss_absent'] = zero_loss(reached).to(inputs.device)
                continue
            task_losses = self._run(
                name,
                inputs,
                features[name],
                [data_samples[i].get(name) for i in losses_of_task],
                losses_of_task,
                'loss',
            )
            weight, more = self.balance(name)
            for key, value in task_losses.items():
                if 'loss' in key:  # others are logged as they are, such as an accuracy
                    value = each_map(lambda loss, factor=weight * share: loss * factor, value)
                losses[f'{name}.{key}'] = value
            losses.update({key: value * share if 'loss' in key else value for key, value in more.items()})
        return losses

    def predict(self, inputs: Tensor, data_samples: Sequence[MultiTaskSample]) -> Sequence[MultiTaskSample]:
        """Returns the samples, with predictions in those of the tasks."""
        features = self._compute(inputs)
        for name in self.tasks:
            indices = [i for i, sample in enumerate(data_samples) if name in sample]
            if not indices:
                continue
            predicted = self._run(
                name, inputs, features, [data_samples[i].get(name) for i in indices], indices, 'predict'
            )
            for i, sample in zip(indices, predicted, strict=True):
                data_samples[i].set_field(sample, name)
        return data_samples

    def _run(self, name: str, inputs: Tensor, features: Any, samples: list, rows: list[int], mode: str) -> Any:
        """Returns a task's output for the images in ``rows``."""
        if len(rows) < len(inputs):
            inputs, features = inputs[rows], each_map(lambda value: value[rows], features)
        with self._memory.holding(inputs, features):
            return self.tasks[name](inputs, samples, mode)


def _build_task(name: str, cfg: Mapping[str, Any]) -> nn.Module:
    """Builds the network of a task, with its library as the default scope of its config."""
    taken = hasattr(MultiTaskSample, name) or hasattr(nn.ModuleDict, name)
    if taken or not name.isidentifier() or 'loss' in name:  # mmengine sums all values with 'loss' in their name
        raise InputError(f'model.tasks: {name!r} cannot be the name of a task; choose another identifier')
    where = f'model.tasks.{name}'
    if not isinstance(cfg, Mapping) or not cfg:
        raise InputError(f'{where}: a task is the config of a network without backbone, got {cfg!r}')
    if 'backbone' in cfg:
        raise InputError(f'{where}.backbone: the backbone of all tasks is model.backbone')
    library = library_of(registered_class(MODELS, cfg.get('type'), f'{where}.type'))
    cfg = ConfigDict(copy.deepcopy(dict(cfg)), backbone=dict(type=scoped(SharedFeatures)))
    with naming(where, Exception):
        task = MODELS.build(ConfigDict(cfg, _scope_=library) if library else cfg)
    if not isinstance(getattr(task, 'backbone', None), SharedFeatures):
        raise InputError(f'{where}: {type(task).__name__} must keep its argument backbone as the attribute .backbone')
    if not any(True for _ in task.parameters()):
        given = ', '.join(key for key in cfg if key not in ('type', 'backbone')) or 'nothing'
        raise InputError(f'{where}: {type(task).__name__} has no head: its config has {given}')
    return task


def _shares(counts: list[int], device: torch.device) -> list[float]:
    """Returns for each task this process's share of the images of all processes, times the number of processes."""
    if (processes := get_world_size()) == 1:
        return [1.0] * len(counts)
    totals = torch.tensor(counts, dtype=torch.float32, device=device)
    all_reduce(totals)
    return [count * processes / max(total, 1.0) for count, total in zip(counts, totals.tolist())]


@MODELS.register_module()
class SharedFeatures(nn.Module):
    """Replaces the backbone in the network of a task: returns the features of the surrounding network.

    It has no parameters. ``MultiTaskModel`` puts it where a detector, segmentor or estimator has its own backbone.

    Attributes:
        source: Function ``(images [N, 3, H, W]) -> features``; set by the surrounding network.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source: Callable[[Tensor], Any] | None = None

    def forward(self, images: Tensor) -> Any:
        """Returns the features of [N, 3, H, W]."""
        return self.source(images)


class Memory:
    """Caches the features of the current images; those of any others, such as flipped ones, are computed.

    Args:
        compute: Function ``(images) -> features``.
    """

    def __init__(self, compute: Callable[[Tensor], Any]) -> None:
        self._compute = compute
        self._known: list[tuple[Tensor, Any]] = []

    def __call__(self, images: Tensor) -> Any:
        """Returns the features of a tensor: the cached ones if they were computed from this very tensor."""
        for features_before, features in self._known:
            if features_before is images:
                return features
        return self._compute(images)

    @contextmanager
    def holding(self, images: Tensor, features: Any) -> Iterator[None]:
        """Returns ``features`` for ``images`` while in this context."""
        self._known.append((images, features))
        try:
            yield
        finally:
            self._known.pop()


def zero_loss(parameters: Sequence[Tensor]) -> Tensor:
    """Returns a loss of exactly 0 whose gradient is exactly 0 for all parameters, whatever their values."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return sum((parameter.reshape(-1)[:0].sum() for parameter in trained), torch.zeros(()))


UNCERTAINTY = 'uncertainty'


class LossBalance(nn.Module):
    """Weights of tasks: constants, or trained with the network.

    Trained weights are those of homoscedastic uncertainty (Kendall et al., https://arxiv.org/abs/1705.07115, eq. 10 in
    the form for classification): a task of loss L adds ``exp(-s) L + s / 2``, where s, the logarithm of its variance,
    is a parameter that starts at 0. A loss that stays at 0 would drive s down until exp(-s) is infinite, and a single
    huge one would drive it up permanently: s is clamped to +-:data:`MOST_LOG_VARIANCE`.

    Args:
        tasks: Names of the tasks.
        weights: A number for each task, 1 by default; or ``'uncertainty'``.

    Raises:
        InputError: For a task that does not exist, or a weight that is no finite number of 0 or more.
    """

    def __init__(self, tasks: Sequence[str], weights: Mapping[str, float] | str | None = None) -> None:
        super().__init__()
        is_trained = isinstance(weights, str)
        if is_trained and weights != UNCERTAINTY:
            raise InputError(f'model.loss_weights: {weights!r}, expected numbers by task or {UNCERTAINTY!r}')
        self.log_variances = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in tasks if is_trained})
        self.constants = {} if is_trained else dict(weights or {})
        for name, weight in self.constants.items():
            if name not in tasks:
                raise InputError(f'model.loss_weights: no task {name!r}; there are {", ".join(tasks)}')
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise InputError(f'model.loss_weights.{name}: expected a number of 0 or more, got {weight!r}')

    def forward(self, name: str) -> tuple[float | Tensor, dict[str, Tensor]]:
        """Returns the weight of a task's losses, and additional values for the loss and the log."""
        if name not in self.log_variances:
            return self.constants.get(name, 1.0), {}
        log_variance = self.log_variances[name]
        with torch.no_grad():
            log_variance.clamp_(-MOST_LOG_VARIANCE, MOST_LOG_VARIANCE)
        weight = torch.exp(-log_variance)
        return weight, {f'{name}.loss_uncertainty': log_variance / 2, f'{name}.weight': weight.detach()}


# torchjd's aggregators that need only the Gramian; True if the weights are to sum to the number of tasks.
AGGREGATORS = {'UPGrad': True, 'DualProj': True, 'MGDA': True, 'IMTLG': True, 'AlignedMTL': True, 'PCGrad': False}


class SharedGradient:
    """Combines the gradients of several tasks for their shared features: a sum, or one that agrees with each task.

    The aggregators are those of torchjd (https://github.com/TorchJD/torchjd). They use the gradients for the shared
    features, which a backward pass computes in any case, and only weight them: the heads' training does not change.
    Their weights sum to the number of tasks, like those of a sum, except for PCGrad, which subtracts conflicting parts.

    Args:
        aggregator: One of :data:`AGGREGATORS`, or None for the sum.
        log: Whether to log ``NAME.grad_norm``, the norm of each task's gradient, and ``NAME.OTHER.grad_cosine`` of each
            pair. In mixed precision with float16, norms are multiplied by the loss scale.

    Raises:
        InputError: There is no such aggregator.
        MissingLibraryError: torchjd is not installed, or too old for the aggregator.
    """

    def __init__(self, aggregator: str | None = None, log: bool = False) -> None:
        self.weighting: Callable[[Tensor], Tensor] | None = None
        if aggregator is not None:
            if aggregator not in AGGREGATORS:
                raise InputError(f'model.aggregator: {aggregator!r}, expected one of {", ".join(AGGREGATORS)}')
            try:
                import torchjd.aggregation

                self.weighting = getattr(torchjd.aggregation, f'{aggregator}Weighting')()
            except (ImportError, AttributeError) as error:
                needed = 'pip install "torchjd[quadprog-projector]>=0.18"'
                raise MissingLibraryError(
                    f'model.aggregator={aggregator!r} needs torchjd ({error}): {needed}'
                ) from error
        self.is_mean = AGGREGATORS.get(aggregator, False)
        self.log = log

    @property
    def is_active(self) -> bool:
        """Whether gradients are used at all."""
        return self.log or self.weighting is not None

    def share(self, features: Any, names: Sequence[str]) -> dict[str, Any]:
        """Returns the features for each task, by name; while it :attr:`is_active`, each task has to use them."""
        maps = maps_of(features)
        if not self.is_active or not any(feature_map.requires_grad for feature_map in maps):
            return dict.fromkeys(names, features)
        forked = iter(_Fork.apply(partial(self._combined, names), len(names), *maps))
        return {name: each_map(lambda _: next(forked), features) for name in names}

    def _combined(self, names: Sequence[str], rows: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
        gramian = _gramian(rows)
        if self.log:
            _log(names, gramian)
        weights = torch.ones(len(names)) if self.weighting is None else self._weights(gramian)
        combined = []
        for column in zip(*rows):
            there = [gradient * weight for gradient, weight in zip(column, weights.tolist()) if gradient is not None]
            combined.append(sum(there[1:], there[0]) if there else None)
        return combined

    def _weights(self, gramian: Tensor) -> Tensor:
        """Returns the weight of each task [n], the same in all processes; 1 for a task without images."""
        all_reduce(gramian)
        weights = gramian.new_ones(len(gramian))
        if not gramian.isfinite().all():  # float16 overflow: the loss scaler finds it and skips the step
            return weights
        there = gramian.diagonal() > 0
        if there.sum() > 1:
            task_weights = self.weighting(gramian[there][:, there].cpu())
            weights[there] = (task_weights * len(task_weights) if self.is_mean else task_weights).to(weights)
        broadcast(weights)  # some draw random numbers
        return weights


class _Fork(torch.autograd.Function):
    """Repeats maps ``count`` times; in the backward pass, a function combines the gradients of each map's copies."""

    @staticmethod
    def forward(ctx, combine: Callable, count: int, *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.combine, ctx.count = combine, count
        return tuple(value.view_as(value) for _ in range(count) for value in maps)

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        size = len(gradients) // ctx.count
        rows = [gradients[start : start + size] for start in range(0, len(gradients), size)]
        return None, None, *ctx.combine(rows)


def _gramian(rows: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Returns the dot products of each two tasks' gradients [n, n], over all maps, in float64."""
    device = next(gradient.device for row in rows for gradient in row if gradient is not None)
    gramian = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=device)
    for i, one in enumerate(rows):
        for k, other in enumerate(rows[: i + 1]):
            pairs = [(a, b) for a, b in zip(one, other) if a is not None and b is not None]
            # summed in an order that keeps float32 accurate over millions of numbers
            products = ((a.float() * b.float()).sum(dim=(-2, -1)).double().sum() for a, b in pairs)
            gramian[i, k] = gramian[k, i] = sum(products, gramian.new_zeros(()))
    return gramian


def _log(names: Sequence[str], gramian: Tensor) -> None:
    hub, norms = MessageHub.get_current_instance(), gramian.diagonal().sqrt().tolist()
    for name, norm in zip(names, norms):
        hub.update_scalar(f'train/{name}.grad_norm', norm)
    for i, k in combinations(range(len(names)), 2):
        if norms[i] and norms[k]:
            hub.update_scalar(f'train/{names[i]}.{names[k]}.grad_cosine', float(gramian[i, k]) / norms[i] / norms[k])
