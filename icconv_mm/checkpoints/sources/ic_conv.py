"""Files released with IC-Conv (Inception Convolution with Efficient Dilation Search, CVPR 2021).

An official inception convolution is a list of convolutions, one per non-zero entry of the pattern:
``layer1.0.conv2.conv_list.N.weight`` [n_N, C/groups, 3, 3]. Their weights in order, concatenated over the output
channels, are the one weight ``layer1.0.conv2.weight`` of this package. All other backbone keys are torchvision's.

The authors do not say which framework wrote the released detectors; all that is known points to POD, today EOD. The
backbone is found by its keys, under whatever prefix; heads are converted where they have the layout of EOD, of mmdet or
of mmpose (any version).
"""

import re
from collections import defaultdict
from collections.abc import Sequence

import torch

from icconv_mm.checkpoints.convert import PARAM, Conversion, RenameRule, register_source
from icconv_mm.checkpoints.sources import RESNET_LAYER, choose_backbone, strip_prefix
from icconv_mm.checkpoints.sources.eod import convert_eod_heads
from icconv_mm.checkpoints.sources.mmdet_heads import convert_heads
from icconv_mm.checkpoints.sources.mmpose import convert_pose_head
from icconv_mm.errors import InputError
from icconv_mm.patterns import load_pattern

_IC_KEY = re.compile(r'(?P<prefix>.*?)layer[1-4]\.\d+\.conv[12]\.conv_list\.\d+\.weight')
_BACKBONE_KEY = re.compile(rf'{RESNET_LAYER}\.(?:conv_list\.\d+\.)?{PARAM}')
_EOD_STEM = {'layer0.0.': 'conv1.', 'layer0.1.': 'bn1.'}  # some files have these beside the usual names
_OTHERS = {  # layouts that are known by a key, and not converted
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
    """Convert an official IC-Conv classifier, pose estimator or detector.

    Args:
        conversion: The file's tensors; what cannot be placed is left in it.
        rules: Rename rules for keys outside the backbone, applied before a layout is recognised.
        backbone_prefix: Prefix of the keys before ``layer1``, for a file that holds several backbones; what belongs to
            the others is left out.
        pattern: A pattern (see ``load_pattern``) that the sub-convolutions must have, checked run by run.

    Raises:
        InputError: No backbone, or several; sub-convolutions that are missing, differ in shape or from the pattern.
    """
    prefix = _find_backbone(conversion, backbone_prefix)
    runs = _convert_backbone(conversion, prefix)
    if pattern is not None:
        _check_pattern(conversion, runs, pattern)
    strip_prefix(conversion, prefix)
    conversion.rename_left(rules)
    known = (convert_eod_heads, convert_heads, convert_pose_head, _convert_classifier)
    if not any(convert(conversion) for convert in known):
        other = next((name for keys, name in _OTHERS.items() if conversion.matching(keys)), 'unknown')
        conversion.layout = f'{other} (its backbone alone is converted)' if conversion.left else 'backbone alone'


def _find_backbone(conversion: Conversion, wanted: str | None) -> str:
    prefixes = [match['prefix'] for key in conversion.left if (match := _IC_KEY.fullmatch(key))]
    if prefixes:
        prefix = choose_backbone(prefixes, wanted, 'IC-Conv backbone')
        _drop_other_networks(conversion, prefix, set(prefixes))
        return prefix
    if not any(_BACKBONE_KEY.fullmatch(key.removeprefix('backbone.')) for key in conversion.left):
        raise InputError('no IC-Conv backbone found: no key ends in layerL.B.convC.conv_list.N.weight')
    dense = 'the file holds a ResNet without sub-convolutions (no key ends in conv_list.N.weight): '
    if conversion.matching(r'keypoint_head\..*'):
        raise InputError(f"{dense}a dense estimator of mmpose 0.x is converted with source 'mmpose'")
    raise InputError(f'{dense}it is a dense ResNet, or converted already, and loads as it is')


def _drop_other_networks(conversion: Conversion, prefix: str, prefixes: set[str]) -> None:
    """Leave out the networks that were not chosen, with their heads."""
    own, *others = (each.removesuffix('backbone.') for each in (prefix, *prefixes - {prefix}))
    within = tuple(other for other in others if len(other) > len(own))
    for key in list(conversion.left) if others else ():
        if not key.startswith(own) or key.startswith(within):
            conversion.drop(key, 'of another network')


def _convert_backbone(conversion: Conversion, prefix: str) -> dict[str, list[int]]:
    """Place the backbone under ``backbone.``; returns the channels of every run of every inception convolution."""
    parts: dict[str, dict[int, str]] = defaultdict(dict)  # inception convolution -> sub-convolution -> its key
    for key in list(conversion.left):
        name = key.removeprefix(prefix)
        name = _EOD_STEM.get(name[:9], name[:9]) + name[9:]
        if (twin := conversion.state_dict.get(f'backbone.{name}')) is not None and twin.equal(conversion.left[key]):
            conversion.drop(key, 'a second copy of the stem')
            continue
        if not key.startswith(prefix) or not _BACKBONE_KEY.fullmatch(name):
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
    """Compare the runs of the file with those of a pattern; RLE are all that a file says of its pattern."""
    first = conversion.state_dict[f'backbone.{next(iter(found))}.weight']  # as many channels in as out, in every ResNet
    groups = first.shape[0] // first.shape[1]
    layers = load_pattern(pattern, channels=[sum(runs) for runs in found.values()], groups=groups)
    for (conv, runs), layer in zip(found.items(), layers):
        expected = [run.out_channels for run in layer]
        if runs != expected:
            raise InputError(f'{conv}: pattern {pattern} has runs of {expected} channels, the file {runs}')


def _convert_classifier(conversion: Conversion) -> bool:
    for name in ('fc', 'backbone.fc', 'head.fc'):
        if f'{name}.weight' in conversion.left:
            conversion.layout = 'classifier'
            conversion.place_all(rf'{name}\.(weight|bias)', r'head.fc.\1')
            return True
    return False
