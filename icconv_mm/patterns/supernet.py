"""Convolutions that get dilations of their own; supernet kernels and the taps of each dilation in them.

A supernet (Inception Convolution with Efficient Dilation Search, CVPR 2021, section 3.2) has a kernel of
K = 2 * d_max + 1 taps a side where the network has 3. The nine taps that a 3x3 convolution of dilation (d_h, d_w) reads
lie in it at centre + (a * d_h, b * d_w), a and b in {-1, 0, 1}: the supernet holds every candidate at once.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from icconv_mm.errors import InputError

_IMAGE_CHANNELS = 3  # a convolution of three input channels reads the image
# where ResNets of mmdet, mmseg, mmpretrain and timm have the 3x3 convolutions of a deep stem
_DEEP_STEM = re.compile(r'((timm_)?model\.)?(stem|conv_stem|conv1\.)')

LayerFilter = str | Callable[[str, nn.Conv2d | Tensor], bool] | None


def selects(filter: LayerFilter, name: str, layer: nn.Conv2d | Tensor, in_channels: int) -> bool:
    """Whether a filter, as :func:`select_convs` takes it, selects a layer."""
    if filter is None:
        return in_channels != _IMAGE_CHANNELS and not _DEEP_STEM.match(name)
    if not isinstance(filter, str):
        return bool(filter(name, layer))
    try:
        return bool(re.search(filter, name))
    except re.error as error:
        raise InputError(f'filter {filter!r} is not a regular expression: {error}') from None


def conv_layers(module: nn.Module, filter: LayerFilter = None) -> Iterator[tuple[str, nn.Module]]:
    """Returns the convolutions of 3x3 and more of any kind, deformable ones too, in order of definition.

    A convolution within a convolution (for the offsets of a deformable one) is part of it. ``filter`` is that of
    :func:`select_convs`.
    """
    inside: tuple[str, ...] = ()
    for name, layer in module.named_modules():
        weight = getattr(layer, 'weight', None)
        if not isinstance(weight, Tensor) or weight.ndim != 4 or isinstance(layer, _ConvTransposeNd):
            continue
        if name.startswith(inside) or not (hasattr(layer, 'kernel_size') and hasattr(layer, 'groups')):
            continue
        inside += (f'{name}.' if name else '',)
        if min(weight.shape[2:]) >= 3 and selects(filter, name, layer, weight.shape[1] * layer.groups):
            yield name, layer


def select_convs(
    module: nn.Module, filter: LayerFilter = None, kinds: tuple[type, ...] = ()
) -> Iterator[tuple[str, nn.Conv2d]]:
    """Returns the square convolutions of 3x3 and more that may get other dilations, in order of definition.

    Args:
        module: Any network. Subclasses of ``nn.Conv2d`` that compute something else (deformable, weight-standardised,
            padded in another way) are skipped.
        filter: Selects convolutions: a regular expression searched in the name, or a callable (name, convolution) ->
            bool. None selects all but the stem, which published patterns do not count: convolutions of the image (3
            input channels), and a deep stem (``stem``, ``conv_stem`` or a ``conv1`` of several layers).
        kinds: Subclasses that are not skipped.
    """
    for name, layer in conv_layers(module, filter):
        kind = type(layer)
        ordinary = isinstance(layer, nn.Conv2d) and kind.forward is nn.Conv2d.forward
        if kind in kinds or (ordinary and kind._conv_forward is nn.Conv2d._conv_forward):
            yield name, layer


class SupernetKernel(NamedTuple):
    """One convolution as the search sees it: its layer's name, its weight [C_out, C_in / groups, kh, kw] and groups."""

    name: str
    weight: Tensor
    groups: int

    @property
    def in_channels(self) -> int:
        return self.weight.shape[1] * self.groups


def check_d_max(d_max: int, name: str = 'd_max') -> None:
    """Raises InputError unless ``d_max``, the argument ``name``, is a positive integer."""
    if not isinstance(d_max, int) or d_max < 1:
        raise InputError(f'{name} must be a positive integer, got {d_max!r}')


def candidates(d_max: int) -> Tensor:
    """Returns all dilations (d_h, d_w) up to ``d_max``, [d_max^2, 2], the smallest first.

    The order decides ties: smaller d_h + d_w, then smaller d_h.
    """
    check_d_max(d_max)
    pairs = [(h, w) for h in range(1, d_max + 1) for w in range(1, d_max + 1)]
    return torch.tensor(sorted(pairs, key=lambda d: (sum(d), d)))


def tap_indices(dilations: Tensor, d_max: int) -> Tensor:
    """Returns the positions of the nine taps of each dilation in the flattened K x K kernel: [N, 2] -> [N, 9]."""
    kernel = 2 * d_max + 1
    steps = torch.arange(-1, 2)
    rows = d_max + dilations[:, 0, None, None] * steps[:, None]
    columns = d_max + dilations[:, 1, None, None] * steps
    return (rows * kernel + columns).flatten(1)


def embed_taps(weight: Tensor, d_max: int) -> Tensor:
    """Returns the supernet kernel that computes the same as a 3x3 kernel: its taps around the centre, zero elsewhere.

    Args:
        weight: [C_out, C_in / groups, 3, 3].
        d_max: The largest dilation of the supernet.

    Returns:
        [C_out, C_in / groups, 2 * d_max + 1, 2 * d_max + 1].
    """
    return nn.functional.pad(weight, [d_max - 1] * 4)


def keep_taps(weight: Tensor, dilations: Tensor) -> Tensor:
    """Returns the 3x3 kernels of a supernet kernel when each filter keeps the nine taps of its dilation.

    Args:
        weight: [C_out, C_in / groups, K, K], K odd.
        dilations: The (d_h, d_w) of each filter or, when there are fewer than filters, of each group of consecutive
            filters, [U, 2], U dividing C_out.

    Returns:
        [C_out, C_in / groups, 3, 3].
    """
    out_channels, in_channels, kernel = weight.shape[:3]
    d_max = kernel // 2
    if dilations.max() > d_max:
        raise InputError(
            f'a {kernel}x{kernel} kernel holds dilations up to {d_max}, got {tuple(dilations.amax(0).tolist())}'
        )
    taps = tap_indices(dilations, d_max).to(weight.device).repeat_interleave(out_channels // len(dilations), 0)
    kept = weight.flatten(2).gather(2, taps[:, None].expand(-1, in_channels, -1))
    return kept.unflatten(2, (3, 3))


def select_kernels(
    model: nn.Module | Mapping[str, Tensor], d_max: int, filter: LayerFilter = None, groups: int | Mapping[str, int] = 1
) -> list[SupernetKernel]:
    """Returns the supernet kernels of a network or of its state dict, in order of definition.

    Args:
        model: The network with (2 * d_max + 1)^2 kernels, or its state dict.
        d_max: Largest dilation that the supernet was built with.
        filter: Selects layers, as in :func:`select_convs`; for a state dict a callable gets (name, weight). None
            selects every kernel above 3x3 but those of the stem.
        groups: Groups of all selected layers, or {layer: groups}; needed for a state dict, which does not contain them.

    Raises:
        InputError: If a selected kernel is not (2 * d_max + 1)^2, contains NaN or infinity, or none is selected.
    """
    check_d_max(d_max)
    side = 2 * d_max + 1
    if isinstance(model, nn.Module):
        kernels = [
            SupernetKernel(name, conv.weight.detach(), conv.groups) for name, conv in select_convs(model, filter)
        ]
    else:
        kernels = list(_kernels_of_state(model, filter, groups))
    kernels = [kernel for kernel in kernels if filter is not None or max(kernel.weight.shape[2:]) > 3]
    if not kernels:
        state = model.state_dict() if isinstance(model, nn.Module) else model
        sizes = sorted({tuple(w.shape[2:]) for w in state.values() if isinstance(w, Tensor) and w.ndim == 4})
        shown = ', '.join(f'{h}x{w}' for h, w in sizes) or 'none'
        raise InputError(
            f'no supernet kernel of {side}x{side} selected; kernels present: {shown} '
            f'(the stem counts only if the filter names it)'
        )
    for name, weight, groups in kernels:
        filters, _, height, width = weight.shape
        if (height, width) != (side, side):
            hint = f'that is d_max {height // 2}' if height == width and height % 2 else 'not square and odd'
            raise InputError(f'{name}: kernel {height}x{width} ({hint}), expected {side}x{side} for d_max {d_max}')
        if groups < 1 or filters % groups:
            raise InputError(f'{name}: {filters} filters do not divide into {groups} groups')
        if bad := (~weight.isfinite()).sum().item():
            raise InputError(f'{name}: {bad} of {weight.numel()} weights are NaN or infinite')
    return kernels


def _kernels_of_state(state: Mapping[str, Tensor], filter: LayerFilter, groups) -> Iterator[SupernetKernel]:
    for key, weight in state.items():
        name = key.removesuffix('.weight')
        if name == key or not isinstance(weight, Tensor) or weight.ndim != 4 or min(weight.shape[2:]) < 3:
            continue
        if selects(filter, name, weight, weight.shape[1]):
            yield SupernetKernel(name, weight, groups if isinstance(groups, int) else groups.get(name, 1))
