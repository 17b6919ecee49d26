"""Patterns of networks by name, from files or lists; reading and writing of pattern files.

Beside them, the pattern that mmcv's ``RFSearchHook`` found: RF-Next, https://arxiv.org/abs/2206.06637.
"""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from torch import nn

from icconv_mm.errors import InputError, naming
from icconv_mm.files import read_small, write_json
from icconv_mm.patterns.alignment import align as aligned
from icconv_mm.patterns.download import PUBLISHED, published_file
from icconv_mm.patterns.pattern import DilationPattern, Run
from icconv_mm.patterns.supernet import LayerFilter, conv_layers

_ANALYTIC = re.compile(r'dense|(geometric|even)_d([1-9]\d?)')
_NAMES = (
    f"'dense', 'geometric_dN', 'even_dN' (N, the largest dilation, from 1 to 99), {', '.join(map(repr, PUBLISHED))}"
)


def load_pattern(
    source: str | Path | Sequence,
    channels: Sequence[int] | None = None,
    groups: int | Sequence[int] = 1,
    names: Sequence[str] | None = None,
    align: int | None = None,
) -> list[DilationPattern]:
    """Returns the pattern of a network, one ``DilationPattern`` per layer.

    Args:
        source: A name ('dense', 'geometric_d4', 'even_d4', 'detection/ic_resnet50_k9', ...), the path of a pattern
            file, or a list with one entry per layer (a ``DilationPattern``, a table of runs, or a JSON layer). A
            published pattern is downloaded at its first use, with a log line, unless ``ICCONV_MM_OFFLINE=1``.
        channels: The output channels of every 3x3 convolution of the network, in forward order. Required by the
            analytic names; with it the pattern is checked against the network and returned in channels.
        groups: The groups of these convolutions, one number for all or one for each. A pattern of a grouped
            convolution may count in groups.
        names: The names of these convolutions, for messages.
        align: Channels in a block, of which runs then are multiples: see :func:`icconv_mm.patterns.align`.

    Returns:
        One ``DilationPattern`` per layer, in forward order.

    Raises:
        MissingFileError: If the file is missing, or a published pattern is not or cannot be downloaded.
        InputError: If the name is unknown, the file is malformed, or the pattern does not fit the network; the message
            names the file, the layer, and the numbers expected and found.
    """
    network = None
    if channels is not None:
        channels = list(channels)
        groups = [groups] * len(channels) if isinstance(groups, int) else list(groups)
        if len(groups) != len(channels):
            raise InputError(f'got the channels of {len(channels)} convolutions and the groups of {len(groups)}')
        network = list(zip(channels, groups))
    if isinstance(source, str) and (analytic := _ANALYTIC.fullmatch(source)):
        if network is None:
            raise InputError(f'the pattern {source!r} fits a network: pass the channels of its 3x3 convolutions')
        # in whole groups, so that no run cuts a group
        make, d_max = even_pattern if analytic[1] == 'even' else geometric_pattern, int(analytic[2] or 1)
        layers = [make(group if group > 1 else count, d_max) for count, group in network]
    elif isinstance(source, (str, os.PathLike)):
        layers = read_patterns(_find(source))
    elif isinstance(source, Iterable) and not isinstance(source, Mapping):
        layers, source = parse_layers(list(source), 'pattern'), 'pattern'
    else:
        raise InputError(f'a pattern is a name, a file or a list with one entry per layer, got {source!r:.60}')
    layers = layers if network is None else _matched_layers(layers, network, str(source), names)
    if align is None:
        return layers
    return [aligned(layer, align, group) for layer, (_, group) in zip(layers, network or [(0, 1)] * len(layers))]


def analytic_names() -> list[str]:
    """Returns the names of all patterns that fit any network."""
    return ['dense', *(f'{kind}_d{d_max}' for kind in ('geometric', 'even') for d_max in range(1, 100))]


def is_analytic(name: str) -> bool:
    """Whether a name is that of a pattern for any network: 'dense', 'geometric_dN', 'even_dN'."""
    return bool(_ANALYTIC.fullmatch(name))


def own_file(source: Any) -> Path | None:
    """Returns the file that the source of a pattern names; None if there is none, and for a name or a list."""
    if not isinstance(source, (str, os.PathLike)) or is_analytic(str(source)) or str(source) in PUBLISHED:
        return None
    return Path(source) if Path(source).is_file() else None


def geometric_pattern(channels: int, d_max: int) -> DilationPattern:
    """Returns half the channels at dilation 1, a quarter at 2, and so on; dilation ``d_max`` gets the rest.

    ``d_max = 1`` is the dense convolution. Needs no search and no file: the family that ships with the package.
    """
    ends = [round(channels * (1 - 0.5**step)) for step in range(d_max)] + [channels]
    return DilationPattern(tuple(Run(end - start, d, d) for d, (start, end) in enumerate(pairwise(ends), start=1)))


def even_pattern(channels: int, d_max: int) -> DilationPattern:
    """Returns all pairs of dilations up to ``d_max`` with equal numbers of channels, the smallest with what is left."""
    pairs = sorted(product(range(1, d_max + 1), repeat=2), key=lambda pair: (sum(pair), pair))
    share, rest = divmod(channels, len(pairs))
    return DilationPattern([(share + (index < rest), *pair) for index, pair in enumerate(pairs)])


def read_patterns(path: str | Path) -> list[DilationPattern]:
    """Reads a pattern file.

    Returns:
        One pattern per layer, counted as the file counts (a ResNeXt file in groups).

    Raises:
        MissingFileError: If there is no such file.
        InputError: If it is larger than 10 MB, is not JSON, or a layer is malformed; the message names file, layer and
            numbers.
    """
    path = Path(path)
    content = read_small(path, 'pattern file')
    try:
        layers = json.loads(content, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: not JSON ({error})') from None
    if isinstance(layers, _Pairs) or not isinstance(layers, list):
        name = 'an object' if isinstance(layers, _Pairs) else type(layers).__name__
        raise InputError(f'{path}: expected a list with one entry per layer, got {name}')
    return parse_layers(layers, str(path))


def parse_layers(layers: Sequence, source: str) -> list[DilationPattern]:
    """Returns the patterns of a list of patterns, tables of runs or JSON layers; ``source`` names it in errors."""
    if not layers:
        raise InputError(f'{source}: the pattern has no layers')
    patterns = []
    for number, layer in enumerate(layers):
        with naming(f'{source}: layer {number}', ValueError, RecursionError):
            if isinstance(layer, _Pairs):
                key, times = Counter(key for key, _ in layer).most_common(1)[0] if layer else (None, 0)
                if times > 1:
                    raise InputError(f'the key {key!r} appears {times} times')
                layer = dict(layer)
            if not isinstance(layer, DilationPattern):
                layer = DilationPattern.from_json(list(layer) if isinstance(layer, tuple) else layer)
            patterns.append(layer)
    return patterns


def write_patterns(patterns: Sequence[DilationPattern], path: str | Path) -> None:
    """Writes a pattern file, one layer per pattern, atomically."""
    write_json(Path(path), [pattern.to_json() for pattern in patterns], indent=1)


class _Pairs(list):
    """Returns a JSON object as its pairs, because a dict would drop a repeated key."""


def _find(source: str | Path) -> Path:
    if str(source) in PUBLISHED:
        return published_file(str(source))
    path = Path(source)
    if path.is_dir():
        raise InputError(f'pattern {str(source)!r} is a folder; a pattern file is expected')
    if not path.is_file() and path.suffix != '.json':
        raise InputError(f'pattern {str(source)!r} is neither a file nor one of the names {_NAMES}')
    return path


def _matched_layers(
    layers: list[DilationPattern], network: list[tuple[int, int]], source: str, names: Sequence[str] | None
) -> list[DilationPattern]:
    if len(layers) != len(network):
        raise InputError(
            f'{source}: the network has {len(network)} convolutions to convert, the pattern {len(layers)} layers'
        )
    fitted = []
    for number, (layer, (channels, groups)) in enumerate(zip(layers, network)):
        with naming(f'{source}: layer {number}' + (f' ({names[number]})' if names else ''), ValueError):
            fitted.append(layer.for_convolution(channels, groups))
    return fitted


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
    structure = _read_rf_next(Path(path))
    modules = dict(network.named_modules())
    if missing := [name for name in structure if name not in modules]:
        raise InputError(f'{path}: {len(missing)} of its {len(structure)} layers are not in the network: {missing[0]}')
    prefix = _BACKBONE if hasattr(network, 'backbone') else ''
    patterns = {}
    for short, conv in conv_layers(network.backbone if prefix else network, filter):
        name = prefix + short
        with naming(f'{path}: {name}', ValueError):
            dilation = structure.get(name, conv.dilation)
            if any(numbers % default for numbers, default in zip(dilation, conv.dilation)):
                raise InputError(f'dilation {dilation} is no multiple of that in the network, {conv.dilation}')
            factors = (numbers // default for numbers, default in zip(dilation, conv.dilation))
            patterns[name] = DilationPattern([(conv.out_channels, *factors)])
    others = [name for name in structure if name not in patterns]
    if len(others) == len(structure):
        raise InputError(f'{path}: none of its layers is a 3x3 convolution of the backbone: {others[0]}')
    if changed := [name for name in others if structure[name] != getattr(modules[name], 'dilation', None)]:
        _log.warning('not in the pattern, which is of the 3x3 convolutions of the backbone: %s', ', '.join(changed))
    return patterns


def _read_rf_next(path: Path) -> dict[str, tuple[int, int]]:
    """Returns the dilations (height, width) by the names of the layers."""
    content = read_small(path, 'result of RFSearchHook')
    try:
        structure = json.loads(content)['structure']
        pairs = {name: (item, item) if isinstance(item, int) else tuple(item) for name, item in structure.items()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise InputError(f'{path}: expected JSON with the dilations of layers below "structure"') from None
    if not pairs:
        raise InputError(f'{path}: it holds no layer')
    for name, pair in pairs.items():
        if len(pair) != 2 or not all(type(number) is int and number > 0 for number in pair):
            raise InputError(f'{path}: {name}: expected two whole dilations above 0, got {pair}')
    return {name.removeprefix('module.'): pair for name, pair in pairs.items()}
