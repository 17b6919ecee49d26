"""Converts necks and heads of mmdet 1.x and 2.x to the names and the class order of mmdet 3.

mmdet 1.x has the two-stage heads at the top level and class 0 is the background; since 2.0 they are under ``roi_head``
and the background is the last class. Names did not change from 2.x to 3.x. Effect on each layer:

- ``fc_cls`` [K + 1, C], ``[K + 1]``: row 0 (background) moves to the end, so class c of 1.x (1..K) becomes c - 1.
- ``fc_reg`` [4 (K + 1), C]: the background's four rows are removed; class-agnostic regression [4, C] stays.
- ``conv_logits`` [K + 1, C, 1, 1]: the background's mask is removed; a class-agnostic mask [1, C, 1, 1] stays.
- ``rpn_cls`` and the sigmoid classifiers of one-stage heads have no background channel and stay.

The background is removed from weights and biases alike. (mmdet 2.x's upgrade script removed the last class instead of
the first from the biases of ``fc_reg`` and ``conv_logits``; in files that it wrote, these are one class off.)
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from icconv_mm.checkpoints.convert import PARAM, Conversion
from icconv_mm.errors import InputError

_PARAM = r'(?:weight|bias)'
_CONV_MODULE = rf'(?:(?:conv|bn|gn)\.)?{PARAM}'
_NECK_AND_RPN = rf'neck\.(?:lateral|fpn)_convs\.\d+\.{_CONV_MODULE}|rpn_head\.(?:rpn_conv|rpn_cls|rpn_reg)\.{_PARAM}'
_BOX_LAYER = rf'(?:shared|cls|reg)_(?:convs\.\d+\.{_CONV_MODULE}|fcs\.\d+\.{_PARAM})|fc_(?:cls|reg)\.{_PARAM}'
_MASK_LAYER = rf'convs\.\d+\.{_CONV_MODULE}|(?:upsample|conv_logits)\.{_PARAM}'
# The digit is the stage of a cascade.
_ROI_HEAD = rf'bbox_head(?:\.\d)?\.(?:{_BOX_LAYER})|mask_head(?:\.\d)?\.(?:{_MASK_LAYER})'
_DENSE_HEAD = rf'bbox_head\.(?:(?:cls|reg)_convs\.\d+\.{_CONV_MODULE}|retina_(?:cls|reg)\.{_PARAM})'


def has_mmdet_heads(keys: Iterable[str]) -> bool:
    """Returns whether the keys are of a convertible detector of mmdet, of any version."""
    tops = {key.split('.')[0] for key in keys}
    two_stages = 'roi_head' in tops or {'rpn_head', 'bbox_head'} <= tops
    return two_stages or any(key.startswith('bbox_head.retina_') for key in keys)


def convert_heads(conversion: Conversion) -> None:
    """Places the neck and heads of an mmdet file of any version."""
    tops = {key.split('.')[0] for key in conversion.left}
    if 'roi_head' in tops:
        conversion.layout = 'mmdet 2.x/3.x two-stage'
        conversion.place_all(rf'roi_head\.(?:{_ROI_HEAD})')
    elif {'rpn_head', 'bbox_head'} <= tops:
        conversion.layout = 'mmdet 1.x two-stage'
        _convert_v1_roi_heads(conversion)
    else:
        conversion.layout = 'mmdet one-stage'
        # Before mmdet 0.6 the stacked convolutions had no wrapper: cls_convs.0.weight, today cls_convs.0.conv.weight.
        conversion.place_all(r'(bbox_head\.(?:cls|reg)_convs\.\d+)\.(weight|bias)', r'\1.conv.\2')
        conversion.place_all(_DENSE_HEAD)
    conversion.place_all(_NECK_AND_RPN)


def _convert_v1_roi_heads(conversion: Conversion) -> None:
    classes = {  # by stage ('' or, in a cascade, '.0', '.1', '.2'), the background included
        key.removeprefix('bbox_head').removesuffix('.fc_cls.weight'): len(conversion.left[key])
        for key in conversion.matching(r'bbox_head(?:\.\d)?\.fc_cls\.weight')
    }
    for key in conversion.matching(_ROI_HEAD):
        head, *_, layer, _ = key.split('.')
        if layer not in ('fc_cls', 'fc_reg', 'conv_logits'):
            conversion.place(key, f'roi_head.{key}')
            continue
        stage = key.removeprefix(head).partition(f'.{layer}.')[0]
        if stage not in classes:
            raise InputError(f'{key}: bbox_head{stage}.fc_cls.weight, which tells the number of classes, is missing')
        value, how = without_leading_background(key, layer, conversion.left[key], classes[stage])
        conversion.place(key, f'roi_head.{key}', value, how)


def without_leading_background(key: str, layer: str, value: Tensor, classes: int) -> tuple[Tensor, str]:
    """Converts a tensor with background-first rows to the class order of mmdet >= 2; returns it and what changed."""
    rows, per_class = len(value), 4 if layer == 'fc_reg' else 1
    if layer != 'fc_cls' and rows == per_class:
        return value, 'renamed (class-agnostic)'
    if rows != per_class * classes:
        raise InputError(
            f'{key}: expected {per_class * classes} rows ({classes} classes with background), found {rows}'
        )
    if layer == 'fc_cls':
        return torch.cat([value[1:], value[:1]]), 'background moved from first to last'
    return value[per_class:].clone(), 'background removed'
