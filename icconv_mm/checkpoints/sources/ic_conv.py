"""Converts files released with IC-Conv (Inception Convolution with Efficient Dilation Search, CVPR 2021).

An official inception convolution is a list of convolutions, one per non-zero entry of the pattern:
``layer1.0.conv2.conv_list.N.weight`` [n_N, C/groups, 3, 3]. Concatenated in order over the output channels, their
weights are the weight ``layer1.0.conv2.weight`` of this package. All other backbone keys are torchvision's.

The authors do not name the framework of the released detectors; everything known points to POD, now EOD. The backbone
is found by its keys, under any prefix; heads are converted if they have the layout of EOD, of mmdet or of mmpose (any
version).
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from icconv_mm.checkpoints.convert import PARAM, Conversion, RenameRule, register_source
from icconv_mm.checkpoints.sources import RESNET_LAYER, choose_backbone, without_prefix
from icconv_mm.checkpoints.sources.eod import convert_eod_heads, has_eod_heads
from icconv_mm.checkpoints.sources.mmdet_heads import convert_heads, has_mmdet_heads
from icconv_mm.checkpoints.sources.mmpose import convert_pose_head, has_pose_head
from icconv_mm.errors import InputError
from icconv_mm.patterns import load_pattern

_IC_KEY = re.compile(r'(?P<prefix>.*?)layer[1-4]\.\d+\.conv[12]\.conv_list\.\d+\.weight')
_BACKBONE_KEY = re.compile(rf'{RESNET_LAYER}\.(?:conv_list\.\d+\.)?{PARAM}')
_EOD_STEM = {'layer0.0.': 'conv1.', 'layer0.1.': 'bn1.'}  # some files have these in addition to the usual names
_OTHERS = {  # layouts that are recognised by a key, but not converted
    r'proposal_generator\..*': 'detectron2',
    r'rpn\.head\..*|roi_heads\.box_predictor\..*': 'torchvision',
    r'roi_heads\.box\.feature_extractor\..*': 'maskrcnn-benchmark',
    r'Conv_Body\..*': 'Detectron.pytorch',
    r'.*\.c[2-5]_lateral\..*': 'EOD, but no Faster, Mask or Cascade R-CNN',
    r'bbox_head\..*': 'mmdet, but neither two-stage nor RetinaNet',
}


@register_source('ic-conv')
def convert_ic_conv(
    conversion: Conversion,
    rules: Sequence[RenameRule] = (),
    backbone_prefix: str | None = None,
    pattern: str | None = None,
) -> None:
    """Converts an official IC-Conv classifier, pose estimator or detector.

    Args:
        backbone_prefix: Prefix of the keys before ``layer1``, for a file with several backbones; the other networks are
            left out.
        pattern: A pattern (see ``load_pattern``) that the sub-convolutions must have, checked run by run.

    Raises:
        InputError: There is no backbone, or several; sub-convolutions are missing, differ in shape or from the pattern.
    """
    prefix = _find_backbone(conversion, backbone_prefix)
    runs = _convert_backbone(conversion, prefix)
    if pattern is not None:
        _check_pattern(conversion, runs, pattern)
    conversion.rename_left([without_prefix(prefix)])
    conversion.rename_left(rules)
    keys = list(conversion.left)
    classifier = next((name for name in ('fc', 'backbone.fc', 'head.fc') if f'{name}.weight' in keys), None)
    if has_eod_heads(keys):
        convert_eod_heads(conversion)
    elif has_mmdet_heads(keys):
        convert_heads(conversion)
    elif has_pose_head(keys):
        convert_pose_head(conversion)
    elif classifier is not None:
        conversion.layout = 'classifier'
        conversion.place_all(rf'{classifier}\.(weight|bias)', r'head.fc.\1')
    else:
        other = next((name for keys, name in _OTHERS.items() if conversion.matching(keys)), 'unknown')
        conversion.layout = f'{other} (its backbone alone is converted)' if conversion.left else 'backbone alone'


def _find_backbone(conversion: Conversion, wanted: str | None) -> str:
    prefixes = [match['prefix'] for key in conversion.left if (match := _IC_KEY.fullmatch(key))]
    if prefixes:
        prefix = choose_backbone(prefixes, wanted, 'IC-Conv backbone')
        # the networks that were not chosen, with their heads
        name, *others = (name.removesuffix('backbone.') for name in (prefix, *set(prefixes) - {prefix}))
        within = tuple(other for other in others if len(other) > len(name))
        for key in list(conversion.left) if others else ():
            if not key.startswith(name) or key.startswith(within):
                conversion.drop(key, 'of another network')
        return prefix
    if not any(_BACKBONE_KEY.fullmatch(key.removeprefix('backbone.')) for key in conversion.left):
        raise InputError('no IC-Conv backbone found: no key ends in layerL.B.convC.conv_list.N.weight')
    dense = 'the file holds a ResNet without sub-convolutions (no key ends in conv_list.N.weight): '
    if conversion.matching(r'keypoint_head\..*'):
        raise InputError(f"{dense}a dense estimator of mmpose 0.x is converted with source 'mmpose'")
    raise InputError(f'{dense}it is a dense ResNet, or converted already, and loads as it is')


def _convert_backbone(conversion: Conversion, prefix: str) -> dict[str, list[int]]:
    """Places the backbone under ``backbone.``; returns the channels of each run, by inception convolution."""
    left, placed = conversion.left, {}
    moves: list[tuple[str, str | None]] = []  # key and new name; None for a second copy of the stem
    parts: dict[str, dict[int, str]] = defaultdict(dict)  # inception convolution -> sub-convolution -> its key
    for key, value in left.items():
        name = key.removeprefix(prefix)
        name = _EOD_STEM.get(name[:9], name[:9]) + name[9:]
        if name in placed and placed[name].equal(value):
            moves.append((key, None))
        elif key.startswith(prefix) and _BACKBONE_KEY.fullmatch(name):
            conv, separator, index = name.removesuffix('.weight').partition('.conv_list.')
            if separator:
                if conv not in parts:
                    moves.append((key, conv))
                parts[conv][int(index)] = key
            else:
                placed.setdefault(name, value)
                moves.append((key, name))
    joined = {}
    for conv in sorted(parts, key=lambda conv: [int(number) for number in re.findall(r'\d+', conv)]):  # forward order
        numbers = sorted(parts[conv])
        if missing := sorted(set(range(numbers[-1])) - set(numbers)):
            raise InputError(
                f'{conv}: conv_list has {len(numbers)} weights, the last is number {numbers[-1]}, but {missing} miss'
            )
        keys = [parts[conv][number] for number in numbers]
        joined[conv] = keys, _matching_weights(conv, {key: left[key] for key in keys}, placed)
    for key, name in moves:
        if name is None:
            conversion.drop(key, 'a second copy of the stem')
        elif name in joined:
            keys, weights = joined[name]
            conversion.place(keys, f'backbone.{name}.weight', torch.cat(weights), 'joined over output channels')
        else:
            conversion.place(key, f'backbone.{name}')
    return {conv: [len(weight) for weight in weights] for conv, (_, weights) in joined.items()}


def _matching_weights(conv: str, parts: Mapping[str, Tensor], placed: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns the weights of an inception convolution's parts, which must fit each other and its norm."""
    first, *_ = weights = list(parts.values())
    for key, weight in parts.items():
        if weight.ndim != 4 or weight.shape[1:] != first.shape[1:]:
            expected = ', '.join(map(str, first.shape[1:]))
            raise InputError(f'{key}: expected [n, {expected}], found {list(weight.shape)}')
    channels, norm = sum(map(len, weights)), placed.get(f'{conv.replace(".conv", ".bn")}.weight')
    if norm is not None and len(norm) != channels:
        raise InputError(f'{conv}: its {len(parts)} sub-convolutions have {channels} channels, its norm {len(norm)}')
    return weights


def _check_pattern(conversion: Conversion, dilations: dict[str, list[int]], pattern: str) -> None:
    """Compares the lengths of the file's runs with those of a pattern; a file does not contain its dilations."""
    first = conversion.state_dict[f'backbone.{next(iter(dilations))}.weight']  # in every ResNet: in = out
    groups = first.shape[0] // first.shape[1]
    layers = load_pattern(pattern, channels=[sum(runs) for runs in dilations.values()], groups=groups)
    for (conv, runs), layer in zip(dilations.items(), layers):
        expected = [run.out_channels for run in layer]
        if runs != expected:
            raise InputError(f'{conv}: pattern {pattern} has runs of {expected} channels, the file {runs}')
