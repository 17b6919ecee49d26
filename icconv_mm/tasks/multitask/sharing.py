"""Features that several networks read, computed once."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.utils import apply_to
from torch import Tensor, nn

from icconv_mm.registry import MODELS


def each_map(function: Callable[[Tensor], Tensor], features: Any) -> Any:
    """Features in the same nest of tuples, lists and dicts, with ``function`` applied to every map."""
    return apply_to(features, lambda value: isinstance(value, Tensor), function)


@MODELS.register_module()
class SharedFeatures(nn.Module):
    """Stands for the backbone in the network of a task: gives the features of the network that it is part of.

    It has no parameters. ``MultiTaskModel`` puts it where a detector, segmentor or estimator has its own backbone.

    Attributes:
        source: Function ``(images [N, 3, H, W]) -> features``; set by the network around it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source: Callable[[Tensor], Any] | None = None

    def forward(self, images: Tensor) -> Any:
        """Features of [N, 3, H, W]."""
        return self.source(images)


class Memory:
    """Remembers the features of the images at hand; any other images, such as mirrored ones, are computed.

    Args:
        compute: ``(images) -> features``.
    """

    def __init__(self, compute: Callable[[Tensor], Any]) -> None:
        self._compute = compute
        self._known: list[tuple[Tensor, Any]] = []

    def __call__(self, images: Tensor) -> Any:
        """Features of a tensor: remembered if it is the very tensor that they were computed from."""
        for known, features in self._known:
            if known is images:
                return features
        return self._compute(images)

    @contextmanager
    def holding(self, images: Tensor, features: Any) -> Iterator[None]:
        """While in this context, ``features`` are those of ``images``."""
        self._known.append((images, features))
        try:
            yield
        finally:
            self._known.pop()


def watch_gradient(features: Any, report: Callable[[float], None]) -> Any:
    """The same features; ``report`` gets the Euclidean norm of the gradient that comes back through them.

    It costs no backward pass of its own.
    """
    maps: list[Tensor] = []
    each_map(lambda value: maps.append(value) or value, features)
    watched = iter(_Watch.apply(report, *maps))
    return each_map(lambda value: next(watched), features)


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, report: Callable[[float], None], *maps: Tensor) -> tuple[Tensor, ...]:
        ctx.report = report
        return tuple(value.view_as(value) for value in maps)

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        norms = [float(gradient.norm()) for gradient in gradients if gradient is not None]
        ctx.report(math.hypot(*norms))
        return None, *gradients


def zero_loss(parameters: Sequence[nn.Parameter]) -> Tensor:
    """A loss of exactly 0 whose gradient is exactly 0 for all parameters, whatever their values."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return sum((parameter.reshape(-1)[:0].sum() for parameter in trained), torch.zeros(()))
