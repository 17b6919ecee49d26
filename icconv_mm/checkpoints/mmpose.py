"""Bottom-up estimators that mmpose 0.x or 1.x trained: a dense ResNet and the head of associative embedding.

The backbone has torchvision's names in both versions. An inception convolution has the weight and the key of the dense
3x3 convolution, so a converted file also initialises an IC-ResNet.
"""

import re
from collections.abc import Sequence

from icconv_mm.checkpoints.conversion import Conversion
from icconv_mm.checkpoints.ic_conv import BACKBONE_KEY, choose_backbone
from icconv_mm.checkpoints.mmpose_heads import convert_pose_head
from icconv_mm.checkpoints.rules import RenameRule, apply_rules
from icconv_mm.errors import InputError

_FIRST_KEY = re.compile(r'(?P<prefix>.*?)layer1\.0\.conv1\.weight')
_IC_KEY = re.compile(r'.*\.conv_list\.\d+\.weight')


def convert_mmpose(
    conversion: Conversion,
    rules: Sequence[RenameRule] = (),
    backbone_prefix: str | None = None,
    pattern: str | None = None,
) -> None:
    """Convert an associative-embedding estimator with a dense ResNet.

    Args:
        conversion: The file's tensors; what cannot be placed is left in it.
        rules: Rename rules for keys outside the backbone, applied before the head is recognised.
        backbone_prefix: What stands before ``layer1`` in the file, for a file that holds several backbones.
        pattern: Refused: a dense file has no pattern to check.

    Raises:
        ValueError: No dense ResNet, or several of them, or a pattern was given.
    """
    if pattern is not None:
        raise InputError(f"source 'mmpose' is for dense ResNets, which have no pattern to check; got {pattern!r}")
    if conversion.matching(_IC_KEY):
        raise InputError("the file has sub-convolutions (conv_list.N.weight): it is converted with source 'ic-conv'")
    prefixes = [_FIRST_KEY.fullmatch(key)['prefix'] for key in conversion.matching(_FIRST_KEY)]
    if not prefixes:
        raise InputError('no ResNet found: no key ends in layer1.0.conv1.weight')
    prefix = choose_backbone(prefixes, backbone_prefix, 'ResNet')
    for key in list(conversion.left):
        name = key.removeprefix(prefix)
        if key.startswith(prefix) and BACKBONE_KEY.fullmatch(name):
            conversion.place(key, f'backbone.{name}')
    outer = prefix.removesuffix('backbone.')
    conversion.rename_left({key: key.removeprefix(outer) for key in conversion.left})
    apply_rules(conversion, rules)
    if not convert_pose_head(conversion):
        conversion.layout = 'unknown' if conversion.left else 'backbone alone'
