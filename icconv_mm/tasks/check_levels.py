"""Feature levels: their maps, and checks that heads match those that they read."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.utils import apply_to
from torch import Tensor, nn

from icconv_mm.config_tree import as_list
from icconv_mm.errors import InputError

_PROBE = 256  # pixels: large enough for strides up to 128, and of a length that shows the stride


class Level(NamedTuple):
    """Channels and stride of one feature level."""

    channels: int
    stride: int


def has_filters(model: nn.Module) -> bool:
    """Returns whether all filters are complete. FSDP keeps a part of each filter, as a vector, in each process."""
    return all(module.weight.ndim == 4 for module in model.modules() if isinstance(module, nn.Conv2d))


def levels_of(model: nn.Module) -> list[Level]:
    """Returns the levels that ``extract_feat`` computes for one small image."""
    training, parameter = model.training, next(model.parameters())
    model.eval()
    try:
        with torch.no_grad():
            features = model.extract_feat(parameter.new_zeros(1, 3, _PROBE, _PROBE))
    finally:
        model.train(training)
    # a level may be a pair of maps
    firsts = [maps_of(level)[0] for level in ([features] if isinstance(features, Tensor) else features)]
    return [Level(first.shape[1], round(_PROBE / first.shape[-1])) for first in firsts]


def each_map(function: Callable[[Tensor], Tensor], features: Any) -> Any:
    """Applies ``function`` to every map of features in nested tuples, lists and dicts; returns the same structure."""
    return apply_to(features, lambda value: isinstance(value, Tensor), function)


def maps_of(features: Any) -> list[Tensor]:
    """Returns the maps of :func:`each_map`, in its order."""
    maps: list[Tensor] = []
    each_map(lambda value: maps.append(value) or value, features)
    return maps


def check_levels(network: nn.Module, levels: Sequence[Level], name: str, giver: str) -> None:
    """Raises InputError if a head of the network ``name`` does not match the levels of the module ``giver``."""
    for path, module in network.named_modules():
        for problem in _misfits(module, levels):
            raise InputError(
                f'{name}.{path}: {problem}, but {giver} gives {len(levels)} levels of '
                f'{", ".join(str(level.channels) for level in levels)} channels and of strides '
                f'{", ".join(str(level.stride) for level in levels)}'
            )


def _misfits(module: nn.Module, levels: Sequence[Level]) -> Iterator[str]:
    """Yields each mismatch between a head and the levels, for heads with the attributes of mmdet and mmseg."""
    count, channels = len(levels), [level.channels for level in levels]
    index, joins = getattr(module, 'in_index', None), getattr(module, 'input_transform', None) == 'resize_concat'
    if index is not None:
        for i, wanted in zip(as_list(index), as_list(getattr(module, 'in_channels', None))):
            if not -count <= i < count:
                yield f'in_index {index} reads level {i}'
            elif isinstance(wanted, int) and not joins and channels[i] != wanted:
                yield f'in_channels is {wanted} for level {i}'
    generator = getattr(module, 'prior_generator', None)
    if generator is not None and hasattr(generator, 'strides'):
        if len(generator.strides) != count:
            yield f'its priors are for {len(generator.strides)} levels'
        if getattr(module, 'in_channels', channels[0]) != channels[0]:
            yield f'in_channels is {module.in_channels}'
        yield from _other_strides(generator.strides, levels, 'the strides of its priors')
    if hasattr(module, 'featmap_strides'):
        if len(module.featmap_strides) > count:
            yield f'featmap_strides are for {len(module.featmap_strides)} levels'
        joins = getattr(module, 'aggregation', None) == 'concat'  # of a GenericRoIExtractor
        wanted = sum(channels[: len(module.featmap_strides)]) if joins else channels[0]
        if getattr(module, 'out_channels', wanted) != wanted:
            yield f'out_channels is {module.out_channels}'
        yield from _other_strides(module.featmap_strides, levels, 'featmap_strides')


def _other_strides(strides: Sequence, levels: Sequence[Level], what: str) -> Iterator[str]:
    wanted = [as_list(stride)[0] for stride in strides]
    if any(stride != level.stride for stride, level in zip(wanted, levels)):
        yield f'{what} are {", ".join(map(str, wanted))}'
