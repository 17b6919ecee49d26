"""Converts bottom-up estimators that mmpose 0.x or 1.x trained: a dense ResNet and an associative-embedding head.

The backbone has torchvision's names in both versions. An inception convolution has the weight and the key of the dense
3x3 convolution, so a converted file also initialises an IC-ResNet.

Heads of both versions (``AESimpleHead`` in 0.x) are deconvolutions, optional convolutions and a last convolution to
heatmaps and tags. Values and channel order are equal; names differ:

- ``keypoint_head.`` of 0.x is ``head.`` in 1.x;
- with intermediate convolutions, ``final_layer`` of 0.x is a sequence that includes them: its last entry is the
  ``final_layer`` of 1.x, the others are its ``conv_layers``.
"""

import re
from collections.abc import Iterable, Sequence

from icconv_mm.checkpoints.convert import PARAM, Conversion, RenameRule, register_source
from icconv_mm.checkpoints.sources import RESNET_LAYER, choose_backbone, without_prefix
from icconv_mm.errors import InputError

_FIRST_KEY = re.compile(r'(?P<prefix>.*?)layer1\.0\.conv1\.weight')
_TODAYS_HEAD = rf'head\.(?:(?:deconv|conv)_layers\.\d+|final_layer)\.{PARAM}'
_HEAD_KEY = re.compile(rf'keypoint_head\.(?:deconv_layers\.\d+|final_layer(?:\.\d+)?)\.{PARAM}|{_TODAYS_HEAD}')
_IC_KEY = re.compile(r'.*\.conv_list\.\d+\.weight')


@register_source('mmpose')
def convert_mmpose(
    conversion: Conversion,
    rules: Sequence[RenameRule] = (),
    backbone_prefix: str | None = None,
) -> None:
    """Converts an associative-embedding estimator with a dense ResNet.

    Args:
        backbone_prefix: Prefix of the keys before ``layer1``, for a file with several backbones.

    Raises:
        InputError: There is no dense ResNet, or several.
    """
    if conversion.matching(_IC_KEY):
        raise InputError("the file has sub-convolutions (conv_list.N.weight): it is converted with source 'ic-conv'")
    prefixes = [_FIRST_KEY.fullmatch(key)['prefix'] for key in conversion.matching(_FIRST_KEY)]
    if not prefixes:
        raise InputError('no ResNet found: no key ends in layer1.0.conv1.weight')
    prefix = choose_backbone(prefixes, backbone_prefix, 'ResNet')
    conversion.place_all(rf'{re.escape(prefix)}({RESNET_LAYER}\.{PARAM})', r'backbone.\1')
    conversion.rename_left([without_prefix(prefix)])
    conversion.rename_left(rules)
    if has_pose_head(conversion.left):
        convert_pose_head(conversion)
    else:
        conversion.layout = 'unknown' if conversion.left else 'backbone alone'


def has_pose_head(keys: Iterable[str]) -> bool:
    """Returns whether the keys are of a bottom-up estimator of either version."""
    return any(map(_HEAD_KEY.fullmatch, keys))


def convert_pose_head(conversion: Conversion) -> None:
    """Places the head of a bottom-up file of either version."""
    final = rf'keypoint_head\.final_layer\.(\d+)\.{PARAM}'
    last = max((int(re.fullmatch(final, key)[1]) for key in conversion.matching(final)), default=None)
    placed = [
        *conversion.place_all(rf'keypoint_head\.(deconv_layers\.\d+\.{PARAM})', r'head.\1'),
        *conversion.place_all(rf'keypoint_head\.final_layer\.(?:{last}\.)?({PARAM})', r'head.final_layer.\1'),
        *conversion.place_all(rf'keypoint_head\.final_layer\.(\d+\.{PARAM})', r'head.conv_layers.\1'),
    ]
    conversion.layout = 'mmpose 0.x bottom-up' if placed else 'mmpose 1.x bottom-up'
    if not placed:
        conversion.place_all(_TODAYS_HEAD)
