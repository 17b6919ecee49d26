"""Files released with IC-Conv (Inception Convolution with Efficient Dilation Search, CVPR 2021).

An official inception convolution is a list of convolutions, one per non-zero entry of the pattern:
``layer1.0.conv2.conv_list.N.weight`` [n_N, C/groups, 3, 3]. Their weights in order, concatenated over the output
channels, are the one weight ``layer1.0.conv2.weight`` of this package. All other backbone keys are torchvision's.

Which framework wrote the released detectors is not documented. The backbone is therefore found by its keys, under
whatever prefix; heads are converted where they have the layout of mmdet or of mmpose (any version).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch

from icconv_mm.checkpoints.conversion import Conversion
from icconv_mm.checkpoints.mmdet_heads import convert_heads
from icconv_mm.checkpoints.mmpose_heads import convert_pose_head
from icconv_mm.checkpoints.rules import RenameRule, apply_rules
from icconv_mm.errors import InputError
from icconv_mm.patterns import load_pattern

_IC_KEY = re.compile(r'(?P<prefix>.*?)layer[1-4]\.\d+\.conv[12]\.conv_list\.\d+\.weight')
BACKBONE_KEY = re.compile(
    r'(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv[123]|bn[123]|downsample\.[01]))'
    r'\.(?:conv_list\.\d+\.)?(?:weight|bias|running_mean|running_var|num_batches_tracked)'
)
_CLASSIFIERS = ('fc', 'backbone.fc', 'head.fc')


def convert_ic_conv(
    conversion: Conversion,
    rules: Sequence[RenameRule] = (),
    backbone_prefix: str | None = None,
    pattern: str | None = None,
) -> None:
    """Convert an official IC-Conv classifier, pose estimator or detector.

    Args:
        conversion: The file's tensors; what cannot be placed is left in it.
        rules: Rename rules for keys outside the backbone, applied before a layout is recognised.
        backbone_prefix: What stands before ``layer1`` in the file, for a file that holds several backbones.
        pattern: A pattern (see ``load_pattern``) that the sub-convolutions must have, checked run by run.

    Raises:
        ValueError: No backbone, or several; sub-convolutions that are missing, differ in shape or from the pattern.
    """
    prefix = _find_backbone(conversion, backbone_prefix)
    runs = _convert_backbone(conversion, prefix)
    if pattern is not None:
        _check_pattern(conversion, runs, pattern)
    outer = prefix.removesuffix('backbone.')
    conversion.rename_left({key: key.removeprefix(outer) for key in conversion.left})
    apply_rules(conversion, rules)
    if not (convert_heads(conversion) or convert_pose_head(conversion) or _convert_classifier(conversion)):
        conversion.layout = 'unknown' if conversion.left else 'backbone alone'


def _find_backbone(conversion: Conversion, wanted: str | None) -> str:
    prefixes = [match['prefix'] for key in conversion.left if (match := _IC_KEY.fullmatch(key))]
    if prefixes:
        return choose_backbone(prefixes, wanted, 'IC-Conv backbone')
    if not any(BACKBONE_KEY.fullmatch(key.removeprefix('backbone.')) for key in conversion.left):
        raise InputError('no IC-Conv backbone found: no key ends in layerL.B.convC.conv_list.N.weight')
    dense = 'the file holds a ResNet without sub-convolutions (no key ends in conv_list.N.weight): '
    if conversion.matching(r'keypoint_head\..*'):
        raise InputError(f"{dense}a dense estimator of mmpose 0.x is converted with source 'mmpose'")
    raise InputError(f'{dense}it is a dense ResNet, or converted already, and loads as it is')


def choose_backbone(prefixes: Iterable[str], wanted: str | None, kind: str) -> str:
    """The prefix ``wanted``, or the only one there is.

    Args:
        prefixes: What stands before ``layer1`` in the file; repetitions do not count.
        wanted: The user's choice, if any.
        kind: What they are prefixes of, for the messages.

    Raises:
        ValueError: ``wanted`` is not among them, or none is wanted and there are several.
    """
    prefixes = list(dict.fromkeys(prefixes))
    found = ', '.join(map(repr, prefixes))
    if wanted is not None:
        if wanted not in prefixes:
            raise InputError(f'no {kind} under the prefix {wanted!r}; found {found}')
        return wanted
    if len(prefixes) > 1:
        raise InputError(f'the file holds {len(prefixes)} {kind}s, under {found}; say which (backbone_prefix)')
    return prefixes[0]


def _convert_backbone(conversion: Conversion, prefix: str) -> dict[str, list[int]]:
    """Place the backbone under ``backbone.``; returns the channels of every run of every inception convolution."""
    parts: dict[str, dict[int, str]] = defaultdict(dict)  # inception convolution -> sub-convolution -> its key
    for key in list(conversion.left):
        name = key.removeprefix(prefix)
        if not key.startswith(prefix) or not BACKBONE_KEY.fullmatch(name):
            continue
        conv, separator, index = name.removesuffix('.weight').partition('.conv_list.')
        if separator:
            parts[conv][int(index)] = key
        else:
            conversion.place(key, f'backbone.{name}')
    return {conv: _join(conversion, conv, parts[conv]) for conv in sorted(parts, key=_forward_order)}


def _forward_order(conv: str) -> list[int]:
    return [int(number) for number in re.findall(r'\d+', conv)]  # stage, block, convolution


def _join(conversion: Conversion, conv: str, keys: dict[int, str]) -> list[int]:
    """Concatenate the sub-convolutions of one inception convolution; returns how many channels each has."""
    missing = sorted(set(range(max(keys) + 1)) - set(keys))
    if missing:
        raise InputError(
            f'{conv}: conv_list has {len(keys)} weights, the last is number {max(keys)}, but {missing} miss'
        )
    ordered = [keys[index] for index in range(len(keys))]
    weights = [conversion.left[key] for key in ordered]
    for key, weight in zip(ordered, weights):
        if weight.ndim != 4 or weight.shape[1:] != weights[0].shape[1:]:
            expected = ', '.join(map(str, weights[0].shape[1:]))
            raise InputError(f'{key}: expected [n, {expected}], found {list(weight.shape)}')
    joined = torch.cat(weights)
    norm = conversion.state_dict.get(f'backbone.{conv.replace(".conv", ".bn")}.weight')
    if norm is not None and len(norm) != len(joined):
        raise InputError(f'{conv}: its {len(keys)} sub-convolutions have {len(joined)} channels, its norm {len(norm)}')
    conversion.place(ordered, f'backbone.{conv}.weight', joined, 'joined over output channels')
    return [len(weight) for weight in weights]


def _check_pattern(conversion: Conversion, found: dict[str, list[int]], pattern: str) -> None:
    """Compare the runs of the file with those of a pattern; run lengths are all that a file says of its pattern."""
    first = conversion.state_dict[f'backbone.{next(iter(found))}.weight']  # as many channels in as out, in every ResNet
    groups = first.shape[0] // first.shape[1]
    layers = load_pattern(pattern, channels=[sum(runs) for runs in found.values()], groups=groups)
    for (conv, runs), layer in zip(found.items(), layers):
        expected = [run.out_channels for run in layer]
        if runs != expected:
            raise InputError(f'{conv}: pattern {pattern} has runs of {expected} channels, the file {runs}')


def _convert_classifier(conversion: Conversion) -> bool:
    name = next((name for name in _CLASSIFIERS if f'{name}.weight' in conversion.left), None)
    if name is None:
        return False
    conversion.layout = 'classifier'
    for param in ('weight', 'bias'):
        if f'{name}.{param}' in conversion.left:
            conversion.place(f'{name}.{param}', f'head.fc.{param}')
    return True
