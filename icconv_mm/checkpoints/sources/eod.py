"""Converts heads of detectors that EOD (formerly POD) trained, such as IC-Conv's ``ckpt_e14.pth``, for mmdet 3.

Neck, RPN, box head and mask head are recognised by their layers, because their names are the trainer's choice, usually
``neck``, ``roi_head`` (the RPN), ``bbox_head`` or ``cascade_head``, ``mask_head``. Changes beside the names:

- Class 0 is the background: rows of classes move as those of mmdet 1.x (:mod:`.mmdet_heads`).
- A softmax RPN has two rows per anchor, background and object. Their difference is the one logit of mmdet's sigmoid
  RPN: sigmoid(o - b) = softmax(b, o)[o].
- No mask head was ever published. Its layers are placed by their type, in the file's order: 3x3 convolutions, a
  transposed 2x2 one, a 1x1 one. mmdet's cascade averages a mask head per stage: each stage gets this head.
"""

import re
from collections.abc import Collection

import torch

from icconv_mm.checkpoints.convert import Conversion
from icconv_mm.checkpoints.sources.mmdet_heads import without_leading_background
from icconv_mm.errors import InputError

_SIGNS = {  # layers that identify the parts, by a name for messages
    'pyramid (c2_lateral)': r'(.+)\.c2_lateral\.(?:conv\.)?weight',
    'RPN (conv3x3, conv_loc)': r'(.+)\.conv_loc\.weight',
    'box head (fc_rcnn_cls, or fc_rcnn_cls_list of a cascade)': r'(.+)\.fc_rcnn_cls(?:_list\.0)?\.weight',
}
_RPN = {'conv3x3': 'rpn_conv', 'conv_cls': 'rpn_cls', 'conv_loc': 'rpn_reg'}
_BOXES = {'fc6': 'shared_fcs.0', 'fc7': 'shared_fcs.1', 'fc_rcnn_cls': 'fc_cls', 'fc_rcnn_loc': 'fc_reg'}


def has_eod_heads(keys: Collection[str]) -> bool:
    """Returns whether the keys are of a two-stage detector of EOD; one of its parts may have other layers."""
    return sum(any(re.fullmatch(sign, key) for key in keys) for sign in _SIGNS.values()) >= len(_SIGNS) - 1


def convert_eod_heads(conversion: Conversion) -> None:
    """Places neck and heads of a two-stage detector of EOD.

    Raises:
        InputError: The rows of layers do not fit each other, or mmdet has no such mask head.
    """
    matches = {part: conversion.matching(sign) for part, sign in _SIGNS.items()}
    missing = [part for part, keys in matches.items() if not keys]
    if missing:
        conversion.layout = f'EOD without the {missing[0]} of its Faster, Mask and Cascade R-CNN'
        return
    neck, rpn, boxes = (re.fullmatch(_SIGNS[part], keys[0])[1] for part, keys in matches.items())
    cascade = f'{boxes}.fc_rcnn_cls.weight' not in conversion.left
    classes = len(conversion.left[[*matches.values()][-1][0]])  # with the background
    level_key = re.compile(rf'{re.escape(neck)}\.[cp](\d)_(lateral|conv)\.(?:(conv|bn)\.)?(\w+)')
    for key in conversion.matching(level_key):
        level, layer, norm, param = level_key.fullmatch(key).groups()
        kind = 'lateral_convs' if layer == 'lateral' else 'fpn_convs'
        conversion.place(key, f'neck.{kind}.{int(level) - 2}.{norm or "conv"}.{param}')
    _place_rpn(conversion, rpn)
    box_key = re.compile(rf'{re.escape(boxes)}\.({"|".join(_BOXES)})(?:_list(\.\d))?\.(weight|bias)')
    for key in conversion.matching(box_key):
        layer, stage, param = box_key.fullmatch(key).groups()
        value, how, new = conversion.left[key], 'renamed', _BOXES[layer]
        if new.startswith('fc_'):
            value, how = without_leading_background(key, new, value, classes)
        conversion.place(key, f'roi_head.bbox_head{stage or ""}.{new}.{param}', value, how)
    if masks := conversion.matching(r'[^.]*mask[^.]*\..+'):
        _place_masks(conversion, masks, classes, ('.0', '.1', '.2') if cascade else ('',))
    conversion.layout = f'EOD {" ".join(["Cascade"] * cascade + ["Mask"] * bool(masks)) or "Faster"} R-CNN'


def _place_rpn(conversion: Conversion, name: str) -> None:
    anchors = len(conversion.left[f'{name}.conv_loc.weight']) // 4
    for key in conversion.matching(rf'{re.escape(name)}\.(?:{"|".join(_RPN)})\.(?:weight|bias)'):
        *_, layer, param = key.split('.')
        value, how, rows = conversion.left[key], 'renamed', len(conversion.left[key])
        if layer == 'conv_cls' and rows == 2 * anchors:
            value = value.to(torch.promote_types(value.dtype, torch.float32))
            value, how = value[1::2] - value[::2], 'object less background'
        elif layer == 'conv_cls' and rows != anchors:
            raise InputError(f'{key}: expected {anchors} or {2 * anchors} rows ({anchors} anchors), found {rows}')
        conversion.place(key, f'rpn_head.{_RPN[layer]}.{param}', value, how)


def _place_masks(conversion: Conversion, keys: list[str], classes: int, stages: tuple[str, ...]) -> None:
    layers = [key.removesuffix('.weight') for key in keys if conversion.left[key].ndim == 4]
    kernels = [conversion.left[f'{layer}.weight'].shape[-1] for layer in layers]
    if kernels[-2:] != [2, 1] or set(kernels[:-2]) != {3}:
        raise InputError(
            f'{keys[0].split(".")[0]}: its convolutions have kernels of {kernels}; a mask head has some of 3, one of 2 '
            'that is transposed, and one of 1, in this order'
        )
    names = [*(f'convs.{index}.conv' for index in range(len(layers) - 2)), 'upsample', 'conv_logits']
    for layer, name in zip(layers, names):
        for key in [key for key in keys if key.rpartition('.')[0] == layer]:
            value, how = conversion.left[key], 'renamed by its position'
            if name == 'conv_logits' and len(value) != classes - 1:
                value, how = without_leading_background(key, name, value, classes)
            first, *others = (f'roi_head.mask_head{stage}.{name}.{key.rpartition(".")[2]}' for stage in stages)
            conversion.place(key, first, value, f'{how}, for each stage' if others else how)
            conversion.state_dict |= dict.fromkeys(others, value)
