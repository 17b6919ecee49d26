"""Moves the filters of a network with inception convolutions to patterns of whole blocks of channels."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.patterns import DilationPattern, load_pattern
from icconv_mm.patterns.alignment import aligned_dilations, dilation_of_each
from icconv_mm.patterns.channel_order import runs_of, sort_channels

_CONV = re.compile(r'(|.*\.)layer(\d+)\.(\d+)\.conv(\d)\.weight')


class AlignedLayer(NamedTuple):
    """An inception convolution and its new pattern.

    Attributes:
        name: The layer.
        pattern: The new pattern, in the order of the channels in the new weights.
        moved: Number of channels that have another dilation now.
        share: Their part in the sum of the norms of the filters.
    """

    name: str
    pattern: DilationPattern
    moved: int
    share: float


def align_weights(
    state: Mapping[str, Tensor], pattern: str | Sequence, block: int, model: nn.Module | None = None
) -> tuple[dict[str, Tensor], list[AlignedLayer]]:
    """Moves filters to near dilations until each dilation of a layer has whole blocks of channels.

    Every filter keeps its weights. Which ones move has the least sum of norm times distance, by
    :func:`icconv_mm.patterns.alignment.aligned_dilations`. Then channels are sorted by dilation where this keeps the
    network's function, by :func:`icconv_mm.patterns.channel_order.sort_channels`; elsewhere they stay in place.

    Args:
        state: The weights.
        pattern: Their pattern: see :func:`icconv_mm.patterns.load_pattern`.
        block: Channels in a block, such as 32.
        model: The network of the weights; without it, the convolutions are found by the names of a ResNet.

    Returns:
        The new weights, and the layers in forward order.

    Raises:
        InputError: There are no such convolutions, or several networks of them, the pattern does not fit them, or
            ``block`` is no number above 0.
        MissingLibraryError: scipy is not installed.
    """
    state = dict(state)
    if model is None:
        groups = _groups_by_name(state)
    else:
        groups = {name: model.get_submodule(name).groups for name in patterns_in(model)}
    if not groups:
        raise InputError('align: no inception convolutions found; a network that is no ResNet needs its config')
    channels = [len(state[f'{name}.weight']) for name in groups]
    layers = []
    for (name, group), old in zip(groups.items(), load_pattern(pattern, channels, list(groups.values()), list(groups))):
        weight = state[f'{name}.weight']
        dilations = aligned_dilations(weight, old, block, group)
        size = len(weight) // len(dilations)
        moved = (dilations.repeat_interleave(size, 0) != dilation_of_each(old)).any(1)
        norms = weight.double().flatten(1).norm(dim=1)
        share = float(norms[moved].sum() / norms.sum()) if norms.any() else 0.0
        new = runs_of(sort_channels(state, name, dilations, group)).for_convolution(len(weight), group)
        layers.append(AlignedLayer(name, new, int(moved.sum()), share))
    return state, layers


def patterns_in(model: nn.Module) -> dict[str, DilationPattern]:
    """Returns the pattern of each inception convolution of a network, by name."""
    modules = dict(model.named_modules())
    patterns = {name: getattr(module, 'pattern', None) for name, module in modules.items()}
    return {name: pattern for name, pattern in patterns.items() if isinstance(pattern, DilationPattern)}


def _groups_by_name(state: Mapping[str, Tensor]) -> dict[str, int]:
    """Returns the groups of the 3x3 convolutions in the stages of a ResNet, by name, in forward order."""
    keys = {
        (match[1], *map(int, match.groups()[1:])): key.removesuffix('.weight')
        for key, weight in state.items()
        if (match := _CONV.fullmatch(key)) and tuple(weight.shape[2:]) == (3, 3)
    }
    if len(prefixes := sorted({prefix for prefix, *_ in keys})) > 1:
        names = ', '.join(map(repr, prefixes))
        raise InputError(f'align: found ResNets under {names}; with several, give the config of the model')
    names = [name for _, name in sorted(keys.items())]
    if not names:
        return {}
    first = state[f'{names[0]}.weight']  # in every ResNet: in = out
    return dict.fromkeys(names, len(first) // first.shape[1])
