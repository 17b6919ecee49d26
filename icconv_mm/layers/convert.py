"""Conversion of 3x3 convolutions to supernet kernels, and of both to inception convolutions, in any network."""

import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from pathlib import Path

import torch
from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd

from icconv_mm.errors import InputError, naming
from icconv_mm.layers.inception_conv import ICConv2d
from icconv_mm.layers.settings import layer_like
from icconv_mm.patterns import DilationPattern, load_pattern
from icconv_mm.patterns.supernet import (
    LayerFilter,
    check_d_max,
    conv_layers,
    embed_taps,
    keep_taps,
    select_convs,
    selects,
)
from icconv_mm.torch_private import has_hooks

_LIBRARIES = ('torch.', 'torchvision.', 'timm.', 'mmcv.', 'mmdet.', 'mmseg.', 'mmpose.', 'mmpretrain.', 'icconv_mm.')
_log = logging.getLogger(__name__)
_MOST = 0.75  # share of the weights of 3x3 layers that must not stay dense without a word of the user
_MERGING = ('switch_to_deploy', 'reparameterize', 'fuse')  # methods that merge branches


def to_supernet(module: nn.Module, d_max: int, filter: LayerFilter = None) -> nn.Module:
    """Extends the 3x3 convolutions of a network to kernels of (2 * d_max + 1)^2, in place.

    The result computes the same as the network: the nine weights stay around the centre, the new ones are zero, and the
    padding grows with the kernel. It is ordinary PyTorch and trains like the network.

    This, training, ``patterns.search.edo_search`` and :func:`to_inception` are the steps of the dilation search
    (Inception Convolution with Efficient Dilation Search, CVPR 2021, section 3.2). The network is changed only after
    all its layers have been checked.

    Args:
        module: Any network, or a single convolution.
        d_max: The largest dilation to search.
        filter: Selects 3x3 convolutions: a regular expression searched in the name or a callable
            ``(name, convolution) -> bool``. By default all but the stem: convolutions of the image (3 input
            channels), and a deep stem.

    Returns:
        ``module`` (a new layer if it is itself a convolution).

    Raises:
        InputError: If no convolution is selected, or one of them cannot be extended; the message names the layer.

    Example:
        >>> to_supernet(nn.Conv2d(8, 8, 3, padding=1), d_max=4).kernel_size
        (9, 9)
    """
    check_d_max(d_max)
    convs = [(name, conv) for name, conv in select_convs(module, filter) if conv.kernel_size == (3, 3)]
    if not convs:
        raise InputError(none_selected_message(module, filter))
    owners: dict[nn.Parameter, str] = {}
    for name, conv in convs:
        if (owner := owners.setdefault(conv.weight, name)) != name:
            raise InputError(f'{name}: it shares its weight with {owner}, and two layers have dilations of their own')
    return convert_all(module, convs, supernet_conv, repeat(d_max))


def to_inception(
    module: nn.Module,
    pattern: str | Path | Sequence[DilationPattern],
    filter: LayerFilter = None,
    align: int | None = None,
) -> nn.Module:
    """Converts the 3x3 or supernet convolutions of a network to ``ICConv2d`` by a pattern, in place.

    A 3x3 kernel keeps its weights (the dense pattern does not change the network's results); of a supernet kernel each
    channel keeps the nine taps of its dilation. mmcv's ``ConvWS2d`` and ``ConvAWS2d`` stay weight-standardised;
    deformable and other special convolutions stay unchanged. A class of one's own takes part if it has the method
    ``to_inception(pattern) -> nn.Module``, and ``weight``, ``kernel_size``, ``out_channels`` and ``groups`` as
    ``nn.Conv2d``.

    Args:
        module: Any network, or a single convolution.
        pattern: One pattern per convolution in order of definition, or a file or a name for ``load_pattern``. It may
            include entries for convolutions that stay unchanged.
        filter: Selects convolutions of odd square kernels, 3x3 and above, as in :func:`to_supernet`.
        align: Channels in a block, of which the runs of the pattern are made multiples.

    Returns:
        ``module`` (a new layer if it is itself a convolution).

    Raises:
        InputError: If the pattern has another number of layers than the network, or does not fit one of them: its
            channels, its padding, or a dilation beyond the supernet's; the message names the layer and the numbers. Or
            if unknown classes have over 3/4 of the weights of its 3x3 convolutions; fewer give a warning.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 3, padding=1, stride=2))
        >>> to_inception(network, [[(4, 1, 1), (2, 2, 4)]])[1].pattern
        DilationPattern(4x(1, 1), 2x(2, 4))
    """
    every, convs = list(conv_layers(module, filter)), inception_candidates(module, filter)
    if not convs:
        raise InputError(none_selected_message(module, filter))
    check_left(module, filter, convs)
    patterns = _patterns_of(convs, every, pattern, align)
    converted = convert_all(module, convs, inception_conv, patterns)
    if any(layer.max_dilation > 1 for layer in patterns):
        for parent in converted.modules():
            if any(isinstance(part, ICConv2d) for part in parent.modules()):
                vars(parent).update((name, refuse_merging) for name in _MERGING if hasattr(parent, name))
    return converted


def inception_candidates(module: nn.Module, filter: LayerFilter) -> list[tuple[str, nn.Module]]:
    """Returns the layers that :func:`to_inception` converts, with their names, in order of definition."""
    convs = dict(select_convs(module, filter, tuple(standardized_kinds())))
    return [
        (name, conv) for name, conv in conv_layers(module, filter) if name in convs or hasattr(conv, 'to_inception')
    ]


def check_left(module: nn.Module, filter: LayerFilter, convs: Sequence[tuple[str, nn.Module]]) -> None:
    """Tells which selected layers with kernels of 3x3 and more stay as they are.

    Those of the libraries (deformable ones) are logged at level INFO; those of other classes give a warning.

    Raises:
        InputError: The other classes have over 3/4 of the weights of such layers.
    """
    converted, parts, left = dict(convs), tuple(f'{name}.' for name, _ in convs if name), {}
    for name, layer in module.named_modules():
        weight = layer._parameters.get('weight')
        if weight is None or weight.ndim != 4 or min(weight.shape[2:]) < 3 or isinstance(layer, _ConvTransposeNd):
            continue
        channels = weight.shape[1] * getattr(layer, 'groups', 1)
        if name not in converted and not name.startswith(parts) and selects(filter, name, layer, channels):
            left[name] = layer
    kinds = Counter(type(layer).__name__ for layer in left.values())
    shown = ', '.join(f'{count} {kind}' for kind, count in kinds.items())
    _log.info('%s: %d convolutions converted; left: %s', type(module).__name__, len(convs), shown or 'none')
    unknown = {name: layer for name, layer in left.items() if not type(layer).__module__.startswith(_LIBRARIES)}
    if not unknown:
        return
    share = sum(layer.weight.numel() for layer in unknown.values())
    share /= share + sum(conv.weight.numel() for _, conv in convs)
    names = ', '.join(sorted({type(layer).__name__ for layer in unknown.values()}))
    what = (
        f'{type(module).__name__}: {len(unknown)} of {len(unknown) + len(convs)} convolutions of 3x3 and more, '
        f'{share:.0%} of their weights, are of unknown classes ({names}; the first: {next(iter(unknown))}), '
    )
    if share > _MOST:
        raise InputError(f'{what}which need a method to_inception; or give a filter that leaves them out')
    warnings.warn(f'{what}and stay dense', stacklevel=4)


def refuse_merging(*_: object, **__: object) -> None:
    """Replaces the methods by which RepVGG, MobileOne and similar networks merge branches into dense convolutions.

    Raises:
        InputError: Always.
    """
    raise InputError('branches with dilations of their own make no dense convolution; icconv_mm.deploy folds the norms')


def _patterns_of(convs: list[tuple[str, nn.Conv2d]], every: list, source, align: int | None) -> list[DilationPattern]:
    """Returns the pattern of each of ``convs``, from a pattern of these alone or of ``every`` convolution."""

    def load(layers):
        names = [name for name, _ in layers if name]
        channels, groups = zip(*[(layer.out_channels, layer.groups) for _, layer in layers])
        return load_pattern(source, channels, groups, names, align)

    try:
        chosen = dict(convs)
        return [pattern for (name, _), pattern in zip(every, load(every)) if name in chosen]
    except ValueError as error:
        try:
            return load(convs)
        except ValueError:
            raise error from None


def check_choice(who: str, pattern: object, supernet_d_max: int | None, align: int | None = None) -> None:
    """Raises InputError unless ``who`` got a pattern, perhaps with ``align``, or the largest dilation of a search."""
    if (pattern is None) == (supernet_d_max is None):
        example = "pattern='geometric_d4', or pattern='dense' for no dilation"
        given = f'neither: give for example {example}' if pattern is None else 'both'
        raise InputError(f'{who} needs either a pattern or supernet_d_max, got {given}')
    if pattern is None:
        check_d_max(supernet_d_max, 'supernet_d_max')
        if align is not None:
            raise InputError(f'{who}: align is for a pattern; a supernet is aligned by the search')


def none_selected_message(module: nn.Module, filter: LayerFilter = None) -> str:
    """Returns the message for a network without convolutions to convert: which convolutions it has."""
    convs = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)]
    kinds = Counter(f'{type(conv).__name__} of {"x".join(map(str, conv.kernel_size))}' for _, conv in convs)
    it_has = ', '.join(f'{count} {kind}' for kind, count in kinds.items()) or 'no convolution'
    if not isinstance(filter, str):
        return f'{type(module).__name__}: no 3x3 convolution to convert; it has {it_has}'
    first = next((f', the first of 3x3 is {name}' for name, conv in convs if conv.kernel_size == (3, 3)), '')
    return f'{type(module).__name__}: the filter {filter!r} selects no 3x3 convolution; it has {it_has}{first}'


def supernet_conv(conv: nn.Conv2d, d_max: int) -> nn.Conv2d:
    """Returns the supernet layer of a 3x3 convolution: kernel 2 * d_max + 1, same output. See :func:`to_supernet`."""
    check_padding(conv)
    padding = tuple(pad + (d_max - 1) * dilation for pad, dilation in zip(conv.padding, conv.dilation))
    weight = nn.Parameter(embed_taps(conv.weight.detach(), d_max), conv.weight.requires_grad)
    new = layer_like(conv, nn.Conv2d, weight, kernel_size=2 * d_max + 1, padding=padding)
    new.supernet_d_max = d_max  # marks it among a network's own large kernels
    return new


def inception_conv(conv: nn.Conv2d, pattern: DilationPattern) -> ICConv2d:
    """Returns the inception layer of a 3x3 or supernet convolution. See :func:`to_inception`."""
    if hasattr(conv, 'to_inception'):  # a class of one's own
        return conv.to_inception(DilationPattern.of(pattern).for_convolution(conv.out_channels, conv.groups))
    check_padding(conv)
    kernel = conv.kernel_size[0]
    same = tuple(kernel // 2 * dilation for dilation in conv.dilation)
    if conv.kernel_size != (kernel, kernel) or kernel % 2 == 0:
        raise InputError(f'kernel {conv.kernel_size}, expected a square and odd one')
    if conv.padding != same:
        raise InputError(f'padding {conv.padding}, expected {same}: an inception convolution keeps the size')
    pattern, weight = DilationPattern.of(pattern).for_convolution(conv.out_channels, conv.groups), conv.weight
    if kernel > 3:
        dilations = torch.tensor([run[1:] for run in pattern for _ in range(run.out_channels)])
        weight = nn.Parameter(keep_taps(weight.detach(), dilations), weight.requires_grad)
    new = layer_like(conv, ICConv2d, weight, pattern=pattern, kernel_size=3, padding=None)
    if kind := standardized_kinds().get(type(conv)):
        new.__class__ = kind
        new._buffers.update(conv._buffers)
        vars(new).update((name, value) for name, value in vars(conv).items() if name not in vars(new))
    return new


def check_padding(conv: nn.Conv2d) -> None:
    if conv.padding_mode != 'zeros' or isinstance(conv.padding, str):
        raise InputError(f'padding {conv.padding!r} of mode {conv.padding_mode!r}, expected numbers and zeros')


def convert_all(
    module: nn.Module, convs: Iterable[tuple[str, nn.Conv2d]], convert: Callable, settings: Iterable
) -> nn.Module:
    """Replaces layers by the converted ones, wherever they appear in the network."""
    table = {}
    for (name, conv), setting in zip(convs, settings):
        with naming(name or type(conv).__name__, ValueError):
            if isinstance(conv, nn.Conv2d) and 'weight' not in conv._parameters:
                raise InputError('its weight is computed (pruning, weight norm): convert the network before that')
            if has_hooks(conv):
                raise InputError('it has hooks, which would be lost: register them after the conversion')
            table[conv] = convert(conv, setting)
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child in table:
                setattr(parent, name, table[child])
    return table.get(module, module)


def standardized_kinds() -> dict[type[nn.Module], type[ICConv2d]]:
    """Returns the layers of mmcv that have their own inception layer; none while mmcv is not loaded."""
    if not sys.modules.get('mmcv.cnn'):
        return {}
    from icconv_mm.layers.standardized import STANDARDIZED

    return STANDARDIZED
