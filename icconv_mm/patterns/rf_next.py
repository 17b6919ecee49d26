"""Patterns from the results of mmcv's ``RFSearchHook``: RF-Next, https://arxiv.org/abs/2206.06637."""

import json
import logging
from pathlib import Path

from torch import nn

from icconv_mm.errors import InputError, naming
from icconv_mm.files import read_small
from icconv_mm.patterns.convolutions import LayerFilter, conv_layers
from icconv_mm.patterns.pattern import DilationPattern

_BACKBONE = 'backbone.'
_log = logging.getLogger(__name__)


def rf_next_patterns(path: str | Path, network: nn.Module, filter: LayerFilter = None) -> dict[str, DilationPattern]:
    """Returns the patterns that give a backbone the dilations of a ``local_search_config_stepN.json``.

    Args:
        path: The file, which names the layers of the network that was searched.
        network: That network, a whole model or its backbone alone, without the branches of the search.
        filter: Which layers of the backbone the pattern counts, as in :func:`icconv_mm.layers.to_inception`.

    Returns:
        A pattern for each of these layers by its name in the network, in order of definition. A layer that was not
        searched keeps its dilation. Dilations found elsewhere, as in the neck, are named in the log.

    Raises:
        MissingFileError: There is no such file.
        InputError: The file has another form, a layer is not in the network, or a found dilation is no multiple of the
            layer's.
    """
    structure = _read(Path(path))
    modules = dict(network.named_modules())
    if missing := [name for name in structure if name not in modules]:
        raise InputError(f'{path}: {len(missing)} of its {len(structure)} layers are not in the network: {missing[0]}')
    prefix = _BACKBONE if hasattr(network, 'backbone') else ''
    patterns = {}
    for short, conv in conv_layers(network.backbone if prefix else network, filter):
        name = prefix + short
        with naming(f'{path}: {name}', ValueError):
            patterns[name] = _pattern(conv, structure.get(name, conv.dilation))
    others = [name for name in structure if name not in patterns]
    if len(others) == len(structure):
        raise InputError(f'{path}: none of its layers is a 3x3 convolution of the backbone: {others[0]}')
    if changed := [name for name in others if structure[name] != getattr(modules[name], 'dilation', None)]:
        _log.warning('not in the pattern, which is of the 3x3 convolutions of the backbone: %s', ', '.join(changed))
    return patterns


def _pattern(conv: nn.Conv2d, found: tuple[int, int]) -> DilationPattern:
    """Returns a pattern of one dilation for all channels, divided by the convolution's own."""
    if any(each % own for each, own in zip(found, conv.dilation)):
        raise InputError(f'dilation {found} is no multiple of that in the network, {conv.dilation}')
    return DilationPattern([(conv.out_channels, *(each // own for each, own in zip(found, conv.dilation)))])


def _read(path: Path) -> dict[str, tuple[int, int]]:
    """Returns the dilations (height, width) by the names of the layers."""
    content = read_small(path, 'result of RFSearchHook')
    try:
        structure = json.loads(content)['structure']
        pairs = {name: (each, each) if isinstance(each, int) else tuple(each) for name, each in structure.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise InputError(f'{path}: expected JSON with the dilations of layers below "structure"') from None
    if not pairs:
        raise InputError(f'{path}: it holds no layer')
    for name, pair in pairs.items():
        if len(pair) != 2 or not all(type(each) is int and each > 0 for each in pair):
            raise InputError(f'{path}: {name}: expected two whole dilations above 0, got {pair}')
    return {name.removeprefix('module.'): pair for name, pair in pairs.items()}
