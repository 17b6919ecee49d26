"""Selection of the convolutions of a network that get dilations of their own."""

import re
from collections.abc import Callable, Iterator

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
