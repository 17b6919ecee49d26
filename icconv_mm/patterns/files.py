"""Pattern files: a JSON list with one entry per 3x3 convolution, in forward order."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from icconv_mm.errors import InputError, naming
from icconv_mm.patterns.pattern import DilationPattern
from icconv_mm.utils.files import read_small, write_json


def read_patterns(path: str | Path) -> list[DilationPattern]:
    """Reads a pattern file.

    Returns:
        One pattern per layer, counted as the file counts (a ResNeXt file in groups).

    Raises:
        MissingFileError: If there is no such file.
        InputError: If it is larger than 10 MB, is not JSON, or a layer is malformed; names file, layer and numbers.
    """
    path = Path(path)
    content = read_small(path, 'pattern file')
    try:
        layers = json.loads(content, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: not JSON ({error})') from None
    if isinstance(layers, _Pairs) or not isinstance(layers, list):
        found = 'an object' if isinstance(layers, _Pairs) else type(layers).__name__
        raise InputError(f'{path}: expected a list with one entry per layer, got {found}')
    return parse_layers(layers, str(path))


def parse_layers(layers: Sequence, source: str) -> list[DilationPattern]:
    """Patterns from a list whose items are patterns, tables of runs or JSON layers; ``source`` names it in errors."""
    if not layers:
        raise InputError(f'{source}: the pattern has no layers')
    patterns = []
    for number, layer in enumerate(layers):
        with naming(f'{source}: layer {number}', ValueError):
            patterns.append(_parse_layer(layer))
    return patterns


def write_patterns(patterns: Sequence[DilationPattern], path: str | Path) -> None:
    """Writes one layer per pattern in the form ``read_patterns`` reads; the file appears whole or not at all."""
    write_json(Path(path), [pattern.to_json() for pattern in patterns], indent=1)


class _Pairs(list):
    """A JSON object as its pairs, because a dict would swallow a repeated key."""


def _parse_layer(layer) -> DilationPattern:
    if isinstance(layer, DilationPattern):
        return layer
    if isinstance(layer, _Pairs):
        key, times = Counter(key for key, _ in layer).most_common(1)[0] if layer else (None, 0)
        if times > 1:
            raise InputError(f'the key {key!r} appears {times} times')
        layer = dict(layer)
    return DilationPattern.from_json(list(layer) if isinstance(layer, tuple) else layer)
