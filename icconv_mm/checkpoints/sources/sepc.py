"""Converts files released with SEPC (Scale-Equalizing Pyramid Convolution for Object Detection, CVPR 2020).

mmdet 1.x wrote them. All are one-stage detectors (RetinaNet, FreeAnchor, FSAF) with 80 sigmoid classes, so the class
order stays. Changes:

- ``neck.1.Pconvs.I.Pconv.{0,1,2}`` -> ``neck.1.pconvs.I.{from_coarser,from_same,from_finer}``, ``bn`` -> ``norm``;
  ``lconv``, ``cconv``, ``lbn``, ``cbn`` -> ``reg_conv``, ``cls_conv``, ``reg_norm``, ``cls_norm``.
- FSAF predicts distances in the order bottom, top, left, right there and top, bottom, left, right in mmdet 3: the first
  two rows of its ``retina_reg`` [4, C, 3, 3] are swapped.

The boxes of mmdet 1.x count pixels: docs/checkpoints.md has the settings of anchors and coders for these files.
"""

import re
from collections.abc import Sequence

from icconv_mm.checkpoints.convert import PARAM, Conversion, RenameRule, register_source
from icconv_mm.checkpoints.sources import RESNET_LAYER
from icconv_mm.errors import InputError

_BACKBONE = rf'backbone\.{RESNET_LAYER}\.{PARAM}'
_FPN = r'neck\.(?:0\.)?(?:lateral|fpn)_convs\.\d+\.conv\.(?:weight|bias)'
_SEPC = rf'Pconvs\.\d+\.(?:Pconv\.[012]\.(?:conv_offset\.)?|bn\.){PARAM}|[lc](?:conv\.(?:conv_offset\.)?|bn\.){PARAM}'
_HEAD = r'bbox_head\.(?:(?:cls|reg)_convs\.\d+\.conv|retina_(?:cls|reg))\.(?:weight|bias)'
_FSAF_ROWS = 4  # one box per pixel; RetinaNet and FreeAnchor have nine
_NAMES = {
    'Pconv.0': 'from_coarser',
    'Pconv.1': 'from_same',
    'Pconv.2': 'from_finer',
    'bn': 'norm',
    'lconv': 'reg_conv',
    'cconv': 'cls_conv',
    'lbn': 'reg_norm',
    'cbn': 'cls_norm',
}


@register_source('sepc')
def convert_sepc(conversion: Conversion, rules: Sequence[RenameRule] = ()) -> None:
    """Converts a detector released with SEPC, or the FSAF baseline released with them.

    Raises:
        InputError: There is no one-stage head, or the file is converted already.
    """
    conversion.rename_left(rules)
    if conversion.matching(r'neck\.1\.pconvs\..*'):
        raise InputError('the neck has the keys of this package (neck.1.pconvs): converted already, it loads as it is')
    if 'bbox_head.retina_reg.weight' not in conversion.left:
        raise InputError(
            'no bbox_head.retina_reg.weight: not one of the one-stage detectors that were released with SEPC'
        )
    # which of the authors' configs it belongs to
    head = 'FSAF' if len(conversion.left['bbox_head.retina_reg.weight']) == _FSAF_ROWS else 'RetinaNet or FreeAnchor'
    deforms = bool(conversion.matching(r'neck\.1\.Pconvs\.0\.Pconv\.0\.conv_offset\.weight'))
    lite = bool(conversion.matching(r'neck\.1\.lconv\.conv_offset\.weight'))
    ibn = bool(conversion.matching(r'neck\.1\.Pconvs\.0\.bn\.weight'))
    pconv = bool(conversion.matching(r'neck\.1\.Pconvs\..*'))
    neck = 'SEPC' if deforms else 'SEPC-lite' if lite else 'PConv and iBN' if ibn else 'PConv' if pconv else 'baseline'
    conversion.layout = f'mmdet 1.x {head}, {neck}'
    conversion.place_all(f'{_BACKBONE}|{_FPN}')
    for key in conversion.matching(rf'neck\.1\.(?:{_SEPC})'):
        conversion.place(key, f'neck.1.{rename_neck(key.removeprefix("neck.1."))}')
    for key in conversion.matching(r'bbox_head\.retina_reg\.(?:weight|bias)'):
        if len(value := conversion.left[key]) == _FSAF_ROWS:
            conversion.place(key, key, value[[1, 0, 2, 3]], 'bottom and top swapped')
    conversion.place_all(_HEAD)


def rename_neck(key: str) -> str:
    """Returns this package's key of an official SEPC parameter: ``'Pconvs.0.bn.bias'`` -> ``'pconvs.0.norm.bias'``."""
    old, name, rest = re.fullmatch(r'(Pconvs\.\d+\.)?(Pconv\.\d|[a-z]+)(\..*)', key).groups()
    return f'{(old or "").lower()}{_NAMES[name]}{rest}'
