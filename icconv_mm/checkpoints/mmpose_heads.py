"""Heads of associative embedding of mmpose 0.x (``AESimpleHead``), under the names of 1.x.

Heads of either version are deconvolutions, optional convolutions and a last convolution to heatmaps and tags. Values
and the order of the channels are the same; names are not:

- ``keypoint_head.`` of 0.x is ``head.`` in 1.x;
- with intermediate convolutions, ``final_layer`` of 0.x is a sequence that holds them too: its last entry is the
  ``final_layer`` of 1.x, the others are its ``conv_layers``.
"""

import re

from icconv_mm.checkpoints.conversion import Conversion

_PARAM = r'(?:weight|bias|running_mean|running_var|num_batches_tracked)'
_V0_KEY = re.compile(rf'keypoint_head\.(?:deconv_layers\.\d+|final_layer(?:\.(?P<index>\d+))?)\.{_PARAM}')
_V1_KEY = re.compile(rf'head\.(?:(?:deconv|conv)_layers\.\d+|final_layer)\.{_PARAM}')


def convert_pose_head(conversion: Conversion) -> bool:
    """Place the head of a bottom-up file of either version; False if ``conversion`` holds none."""
    if keys := conversion.matching(_V0_KEY):
        conversion.layout = 'mmpose 0.x bottom-up'
        last = max((int(index) for key in keys if (index := _V0_KEY.fullmatch(key)['index'])), default=None)
        for key in keys:
            conversion.place(key, _rename(key, last))
    elif keys := conversion.matching(_V1_KEY):
        conversion.layout = 'mmpose 1.x bottom-up'
        for key in keys:
            conversion.place(key, key)
    return bool(keys)


def _rename(key: str, last: int | None) -> str:
    """Name in 1.x of a key of 0.x; ``last`` is the number of the last entry of ``final_layer``, if it is a sequence."""
    new = key.replace('keypoint_head.', 'head.', 1)
    if index := _V0_KEY.fullmatch(key)['index']:
        layer = 'final_layer' if int(index) == last else f'conv_layers.{index}'
        new = new.replace(f'final_layer.{index}', layer)
    return new
