"""Converters for other repositories' files, one module each; importing a module registers its converter.

This module has what they share: finding a ResNet by its keys, which all projects take from torchvision.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from icconv_mm.checkpoints.convert import PARAM, Conversion, RenameRule
from icconv_mm.errors import InputError

RESNET_LAYER = r'(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01]))'
_STAGES = ('layer1', 'layer2', 'layer3', 'layer4')
_BLOCKS = {(3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def choose_backbone(prefixes: Iterable[str], wanted: str | None, kind: str) -> str:
    """Returns the prefix ``wanted``, or the only one, of the keys before ``layer1``; messages name ``kind``.

    Raises:
        InputError: ``wanted`` is not among the prefixes, or it is None and there are several.
    """
    prefixes = list(dict.fromkeys(prefixes))
    names = ', '.join(map(repr, prefixes))
    if wanted is not None:
        if wanted not in prefixes:
            raise InputError(f'no {kind} under the prefix {wanted!r}; found {names}')
        return wanted
    if len(prefixes) > 1:
        raise InputError(f'the file holds {len(prefixes)} {kind}s, under {names}; say which (backbone_prefix)')
    return prefixes[0]


def without_prefix(prefix: str) -> RenameRule:
    """Returns the rule that removes the part of a key before the backbone, which a wrapper of the network adds."""
    outer = prefix.removesuffix('backbone.')
    return RenameRule(rf'{re.escape(outer)}(.*)', r'\1')


def place_resnet(conversion: Conversion) -> int:
    """Places a dense ResNet with torchvision's names and its classifier, if any; returns its depth.

    Raises:
        InputError: As :func:`depth_of`.
    """
    conversion.place_all(rf'{RESNET_LAYER}\.{PARAM}', r'backbone.\g<0>')
    conversion.place_all(r'fc\.(?:weight|bias)', r'head.\g<0>')
    return depth_of(conversion.state_dict)


def depth_of(state: Mapping[str, object], stages: Sequence[str] = _STAGES) -> int:
    """Returns the depth of the ResNet under ``backbone.``, which must have bottlenecks and all its blocks.

    ``stages`` are the names of the stages in the file, for messages.

    Raises:
        InputError: Blocks, or weights of a block, are missing.
    """
    blocks = []
    for stage, name in enumerate(stages, start=1):
        block_counts = {int(match[1]) for key in state if (match := re.match(rf'backbone\.layer{stage}\.(\d+)\.', key))}
        if block_counts != set(range(len(block_counts))):
            raise InputError(f'{name}: blocks are missing, found {sorted(block_counts)}')
        blocks.append(len(block_counts))
    if tuple(blocks) not in _BLOCKS:
        depths = ', '.join(f'{list(counts)} (depth {depth})' for counts, depth in _BLOCKS.items())
        raise InputError(f'the stages have {blocks} blocks, expected {depths}')
    for stage, (name, count) in enumerate(zip(stages, blocks), start=1):
        for block in range(count):
            for conv in ('conv1', 'conv2', 'conv3') if block else ('conv1', 'conv2', 'conv3', 'downsample.0'):
                if f'backbone.layer{stage}.{block}.{conv}.weight' not in state:
                    raise InputError(f'{name}_{block}: the weight of {conv} is missing')
    return _BLOCKS[tuple(blocks)]
