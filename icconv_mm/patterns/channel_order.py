"""Sorts the channels of a layer by dilation, in its weights, without changing the network.

A layer's channels can be sorted by dilation without changing the network if only the next convolution reads them: its
output filters, its batch norm and the next layer's input move together. In a residual block that holds for every
convolution but the last, whose channels are tied to the shortcut; there the order stays and the pattern has more runs
than dilations.
"""

import re
from collections.abc import Mapping
from itertools import groupby

import torch
from torch import Tensor

from icconv_mm.patterns.pattern import DilationPattern

_NORM = ('weight', 'bias', 'running_mean', 'running_var')


def runs_of(dilations: Tensor, sort: bool = False) -> DilationPattern:
    """Returns a pattern from the dilation of each channel, [C, 2]; ``sort`` gives one run per dilation."""
    pairs = [tuple(pair) for pair in dilations.tolist()]
    return DilationPattern(tuple((len(list(run)), *d) for d, run in groupby(sorted(pairs) if sort else pairs)))


def sort_channels(state: dict[str, Tensor], name: str, dilations: Tensor, groups: int = 1) -> Tensor:
    """Sorts a layer's channels by dilation where this keeps the network's function; returns their dilations.

    That is inside post-activation residual blocks with ``convN``, ``bnN`` names (torchvision, mmdet, mmpretrain, timm),
    where nothing but a batch norm stands between two convolutions. Elsewhere every channel stays in place.

    Args:
        state: The weights; tensors that move are replaced.
        name: The layer.
        dilations: (d_h, d_w) of each filter or, in a grouped convolution, of each group of filters, [U, 2].
        groups: Groups of the convolution.
    """
    # whether only a batch norm and the next convolution read its channels (and, if it is grouped, its input's)
    is_free = _feeds(state, name, _neighbor(name, 1)) and (
        groups == 1 or _feeds(state, _neighbor(name, -1), name, groups)
    )
    if not is_free:
        return dilations
    weight = state[f'{name}.weight']
    order = torch.argsort(dilations[:, 0] * (int(dilations.max()) + 1) + dilations[:, 1], stable=True)
    size, inside = len(weight) // len(order), weight.shape[1]
    _permute_outputs(state, name, (order[:, None] * size + torch.arange(size)).flatten())
    if groups > 1:  # a group moves with the input channels that it reads
        fan_in = (order[:, None] * inside + torch.arange(inside)).flatten()
        _permute_outputs(state, _neighbor(name, -1), fan_in, inputs=False)
    return dilations[order]


def _neighbor(name: str, step: int) -> str | None:
    """Returns the convolution ``step`` further in the block: 'layer1.0.conv2' -> 'layer1.0.conv3'."""
    match = re.fullmatch(r'(|.*\.)conv(\d)', name)
    return f'{match[1]}conv{int(match[2]) + step}' if match else None


def _norm(name: str) -> str:
    head, _, number = name.rpartition('conv')
    return f'{head}bn{number}'


def _feeds(state: Mapping[str, Tensor], name: str | None, following: str | None, groups: int = 1) -> bool:
    """Whether the block's convolution ``name`` feeds ``following`` through its batch norm alone."""
    if name is None or f'{name}.weight' not in state or f'{following}.weight' not in state:
        return False
    channels = state[f'{name}.weight'].shape[0]
    norm = [f'{_norm(name)}.{part}' for part in _NORM]
    if any(key not in state or state[key].shape != (channels,) for key in norm):
        return False
    if state[f'{following}.weight'].shape[1] * groups != channels:
        return False
    block = name.rpartition('conv')[0]
    inside = [key for key in state if key.startswith(block)]
    pattern = re.compile(re.escape(block) + r'(conv\d|bn\d|downsample)\.')
    # batch norms that come before their convolution are those of a pre-activation block
    return all(pattern.match(key) for key in inside) and inside.index(f'{name}.weight') < inside.index(norm[0])


def _permute_outputs(state: dict[str, Tensor], name: str, order: Tensor, inputs: bool = True) -> None:
    """Permutes the output channels of a convolution, its batch norm and, by default, the next layer's input."""
    for key in (f'{name}.weight', f'{name}.bias', *(f'{_norm(name)}.{part}' for part in _NORM)):
        if key in state:
            state[key] = state[key][order]
    if inputs:
        key = f'{_neighbor(name, 1)}.weight'
        state[key] = state[key][:, order]
