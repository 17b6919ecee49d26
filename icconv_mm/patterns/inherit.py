"""The initial checkpoint of the searched network: the kept taps of a supernet, channels sorted by dilation.

A layer's channels can be sorted by dilation without changing the network if only the next convolution reads them: its
output filters, its batch norm and the next layer's input move together. In a residual block that holds for every
convolution but the last, whose channels are tied to the shortcut; there the order stays and the pattern has more runs
than dilations.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icconv_mm.patterns.pattern import DilationPattern
from icconv_mm.patterns.search import LayerResult, runs_of
from icconv_mm.patterns.supernet import keep_taps

_NORM = ('weight', 'bias', 'running_mean', 'running_var')


def inherit_taps(
    state: Mapping[str, Tensor], results: Sequence[LayerResult], sort: bool = True
) -> tuple[list[DilationPattern], dict[str, Tensor]]:
    """Reduces a supernet's state dict to the taps that the search kept.

    With that pattern the network computes what the supernet computes with all other taps set to zero.

    Args:
        state: State dict of the supernet; keys under any prefix.
        results: What ``search_layers`` returned for this supernet, one result per layer.
        sort: Sort the channels of a layer by dilation where this keeps the network's function: inside post-activation
            residual blocks with ``convN``, ``bnN`` names (torchvision, mmdet, mmpretrain, timm), where nothing but a
            batch norm stands between two convolutions. False keeps every channel in place.

    Returns:
        The patterns, one per layer, and a new state dict that fits them; tensors outside the search are shared.
    """
    state = dict(state)
    patterns = []
    for result in results:
        key = f'{result.name}.weight'
        state[key] = keep_taps(state[key], result.dilations)
        dilations = result.dilations
        if sort and _is_free(state, result):
            order = _order(dilations)
            dilations = dilations[order]
            _permute_outputs(state, result.name, _channels(order, state[key]))
            if result.groups > 1:  # a group moves with the input channels that it reads
                fan_in = order[:, None] * state[key].shape[1] + torch.arange(state[key].shape[1])
                _permute_outputs(state, _neighbor(result.name, -1), fan_in.flatten(), inputs=False)
        patterns.append(runs_of(dilations))
    return patterns, state


def _order(dilations: Tensor) -> Tensor:
    """Returns the stable permutation that sorts (d_h, d_w) pairs."""
    return torch.argsort(dilations[:, 0] * (int(dilations.max()) + 1) + dilations[:, 1], stable=True)


def _channels(order: Tensor, weight: Tensor) -> Tensor:
    """Returns the output channels of groups (or channels) in this order."""
    size = weight.shape[0] // len(order)
    return (order[:, None] * size + torch.arange(size)).flatten()


def _neighbor(name: str, step: int) -> str | None:
    """Returns the convolution ``step`` further in the block: 'layer1.0.conv2' -> 'layer1.0.conv3'."""
    match = re.fullmatch(r'(|.*\.)conv(\d)', name)
    return f'{match[1]}conv{int(match[2]) + step}' if match else None


def _norm(name: str) -> str:
    head, _, number = name.rpartition('conv')
    return f'{head}bn{number}'


def _is_free(state: Mapping[str, Tensor], result: LayerResult) -> bool:
    """Whether only a batch norm and the next convolution read this layer's channels (and, if grouped, its input's)."""
    if not _feeds(state, result.name, _neighbor(result.name, 1)):
        return False
    return result.groups == 1 or _feeds(state, _neighbor(result.name, -1), result.name, result.groups)


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
    known = re.compile(re.escape(block) + r'(conv\d|bn\d|downsample)\.')
    # batch norms that come before their convolution are those of a pre-activation block
    return all(known.match(key) for key in inside) and inside.index(f'{name}.weight') < inside.index(norm[0])


def _permute_outputs(state: dict[str, Tensor], name: str, order: Tensor, inputs: bool = True) -> None:
    """Permutes the output channels of a convolution, its batch norm and, by default, the next layer's input."""
    for key in (f'{name}.weight', f'{name}.bias', *(f'{_norm(name)}.{part}' for part in _NORM)):
        if key in state:
            state[key] = state[key][order]
    if inputs:
        key = f'{_neighbor(name, 1)}.weight'
        state[key] = state[key][:, order]
