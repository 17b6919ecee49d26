"""Gradients of several tasks at the features that they share: measured, and combined into one."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast
from mmengine.logging import MessageHub
from mmengine.utils import apply_to
from torch import Tensor

from icconv_mm.errors import InputError, MissingLibraryError

# Those of torchjd that need nothing but the Gramian, each with its sum of weights: of n tasks, or as they are.
AGGREGATORS = {'UPGrad': True, 'DualProj': True, 'MGDA': True, 'IMTLG': True, 'AlignedMTL': True, 'PCGrad': False}


class SharedGradient:
    """The gradient of several tasks for the features that they share: their sum, or one that agrees with each of them.

    The aggregators are those of torchjd (https://github.com/TorchJD/torchjd). They look at the gradients for the shared
    features, which a backward pass makes in any case, and only weigh them: heads learn as without them. Their weights
    sum to the number of tasks, as those of a sum do, but for PCGrad, which subtracts what conflicts.

    Args:
        aggregator: One of :data:`AGGREGATORS`, or None for the sum.
        log: Whether to log ``NAME.grad_norm``, the norm of what each task sends back, and ``NAME.OTHER.grad_cosine`` of
            each pair. In mixed precision with float16, norms are multiplied by the loss scale.

    Raises:
        InputError: There is no such aggregator.
        MissingLibraryError: torchjd is not installed, or too old for it.
    """

    def __init__(self, aggregator: str | None = None, log: bool = False) -> None:
        self.weighting = None if aggregator is None else _weighting(aggregator)
        self.is_mean = AGGREGATORS.get(aggregator, False)
        self.log = log

    @property
    def is_active(self) -> bool:
        """Whether it looks at gradients at all."""
        return self.log or self.weighting is not None

    def share(self, features: Any, names: Sequence[str]) -> dict[str, Any]:
        """The features for each task, by name; while it :attr:`is_active`, each task has to use them."""
        maps = maps_of(features)
        if not self.is_active or not any(each.requires_grad for each in maps):
            return dict.fromkeys(names, features)
        forked = iter(_Fork.apply(partial(self._combined, names), len(names), *maps))
        return {name: each_map(lambda _: next(forked), features) for name in names}

    def _combined(self, names: Sequence[str], rows: Sequence[Sequence[Tensor | None]]) -> list[Tensor | None]:
        gramian = _gramian(rows)
        if self.log:
            _log(names, gramian)
        weights = torch.ones(len(names)) if self.weighting is None else self._weights(gramian)
        return [_weighted_sum(column, weights.tolist()) for column in zip(*rows)]

    def _weights(self, gramian: Tensor) -> Tensor:
        """The weight of each task [n], the same in all processes; 1 for one that has no image."""
        device = gramian.device
        all_reduce(gramian)
        if not gramian.isfinite().all():  # float16 has overflown: the loss scaler finds it and skips the step
            return torch.ones(len(gramian), dtype=gramian.dtype, device=device)
        there = gramian.diagonal() > 0
        weights = torch.ones(len(gramian), dtype=gramian.dtype, device=device)
        if there.sum() > 1:
            own = self.weighting(gramian[there][:, there].cpu())
            weights[there] = (own * len(own) if self.is_mean else own).to(device, gramian.dtype)
        broadcast(weights)  # some draw random numbers
        return weights


def _weighting(name: str) -> Callable[[Tensor], Tensor]:
    if name not in AGGREGATORS:
        raise InputError(f'model.aggregator: {name!r}, expected one of {", ".join(AGGREGATORS)}')
    try:
        import torchjd.aggregation

        return getattr(torchjd.aggregation, f'{name}Weighting')()
    except (ImportError, AttributeError) as error:
        raise MissingLibraryError(
            f'model.aggregator={name!r} needs torchjd ({error}): pip install "torchjd[quadprog-projector]>=0.18"'
        ) from error


def each_map(function: Callable[[Tensor], Tensor], features: Any) -> Any:
    """Features in the same nest of tuples, lists and dicts, with ``function`` applied to every map."""
    return apply_to(features, lambda value: isinstance(value, Tensor), function)


def maps_of(features: Any) -> list[Tensor]:
    """The maps of :func:`each_map`, in its order."""
    maps: list[Tensor] = []
    each_map(lambda value: maps.append(value) or value, features)
    return maps


class _Fork(torch.autograd.Function):
    """Maps, ``count`` times over; a function makes one gradient for each map of those that come back."""

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
    """The products of the gradients of each two tasks [n, n], over all maps, in float64."""
    device = next(gradient.device for row in rows for gradient in row if gradient is not None)
    gramian = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=device)
    for i, one in enumerate(rows):
        for k, other in enumerate(rows[: i + 1]):
            pairs = [(a, b) for a, b in zip(one, other) if a is not None and b is not None]
            gramian[i, k] = gramian[k, i] = sum((_product(a, b) for a, b in pairs), gramian.new_zeros(()))
    return gramian


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A sum over millions of numbers, in an order that float32 bears."""
    return (a.float() * b.float()).sum(dim=(-2, -1)).double().sum()


def _log(names: Sequence[str], gramian: Tensor) -> None:
    hub, norms = MessageHub.get_current_instance(), gramian.diagonal().sqrt().tolist()
    for name, norm in zip(names, norms):
        hub.update_scalar(f'train/{name}.grad_norm', norm)
    for i, k in combinations(range(len(names)), 2):
        if norms[i] and norms[k]:
            hub.update_scalar(f'train/{names[i]}.{names[k]}.grad_cosine', float(gramian[i, k]) / norms[i] / norms[k])


def _weighted_sum(gradients: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    there = [gradient * weight for gradient, weight in zip(gradients, weights) if gradient is not None]
    return sum(there[1:], there[0]) if there else None
