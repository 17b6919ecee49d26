"""Converts files released with PyConv (2020): ImageNet classifiers, and PyConvSegNet on ADE20K.

An official pyramidal convolution is one convolution per level, ``layer1.0.conv2.conv2_N.weight`` with N from 1; in this
package they are ``layer1.0.conv2.pyconv_levels.N.weight`` with N from 0. All other backbone keys stay. In the files of
PyConvSegNet, the stem is ``layer0.0`` and ``layer0.1``, and the head numbers its layers; ``_HEAD`` maps them to names.
"""

import re
from collections import defaultdict
from collections.abc import Sequence

from icconv_mm.checkpoints.convert import PARAM, Conversion, RenameRule, register_source
from icconv_mm.checkpoints.sources import place_resnet
from icconv_mm.errors import InputError

_LEVEL = re.compile(r'(?P<conv>.*)\.conv2_(?P<number>\d+)\.weight')
_BACKBONE_KEY = re.compile(
    rf'(?:conv1|bn1|layer[1-4]\.\d+\.(?:conv[123](?:\.conv2_\d+)?|bn[123]|downsample\.[012]))\.{PARAM}'
)

# PyConvSegNet: the official name of a layer -> its name in mmseg's EncoderDecoder
_CONTEXT = {0: 'reduce.conv', 1: 'reduce.bn', 3: 'pyconv', 4: 'norm', 6: 'project.conv', 7: 'project.bn'}
_HEAD = {
    **{f'pyconvhead.local_context.layers.{i}': f'decode_head.local_context.{name}' for i, name in _CONTEXT.items()},
    # one higher than in the local branch: the pooling is number 0
    **{f'pyconvhead.global_context.features.{i + 1}': f'decode_head.global_context.{_CONTEXT[i]}' for i in _CONTEXT},
    'pyconvhead.merge_context.features.0': 'decode_head.merge.conv',
    'pyconvhead.merge_context.features.1': 'decode_head.merge.bn',
    'cls.1': 'decode_head.conv_seg',
    'aux.0': 'auxiliary_head.convs.0.conv',
    'aux.1': 'auxiliary_head.convs.0.bn',
    'aux.4': 'auxiliary_head.conv_seg',
}
_HEAD_KEY = re.compile(rf'({"|".join(map(re.escape, _HEAD))})((?:\.conv2_\d+)?\.{PARAM})')


@register_source('pyconv')
def convert_pyconv(conversion: Conversion, rules: Sequence[RenameRule] = ()) -> None:
    """Converts an official PyConvResNet or PyConvHGResNet classifier, or the ResNet that they are compared with.

    Raises:
        InputError: There is no PyConv backbone, or levels are missing or do not fit their norm.
    """
    if not any(_BACKBONE_KEY.fullmatch(key) and _LEVEL.fullmatch(key) for key in conversion.left):
        if 'layer1.0.conv3.weight' in conversion.left and not any('pyconv' in key for key in conversion.left):
            conversion.layout = f'ResNet-{place_resnet(conversion)}'
            conversion.rename_left(rules)
            return
        reason = 'the keys of this package: it is converted already, and loads as it is'
        if not any('.pyconv_levels.' in key for key in conversion.left):
            reason = 'no key that ends in layerL.B.convC.conv2_N.weight'
        if any(key.startswith('pyconvhead.') for key in conversion.left):
            reason = "the keys of PyConvSegNet: its source is 'pyconvsegnet'"
        raise InputError(f'no PyConv classifier found: the file has {reason}')
    _convert_backbone(conversion)
    conversion.rename_left(rules)
    conversion.layout = 'classifier' if 'fc.weight' in conversion.left else 'backbone alone'
    conversion.place_all(r'fc\.(?:weight|bias)', r'head.\g<0>')


@register_source('pyconvsegnet')
def convert_pyconvsegnet(conversion: Conversion, rules: Sequence[RenameRule] = ()) -> None:
    """Converts an official PyConvSegNet, on a PyConvResNet, a PyConvHGResNet or a ResNet.

    Raises:
        InputError: The file is no PyConvSegNet, or levels are missing or do not fit their norm.
    """
    if not any(_HEAD_KEY.fullmatch(key) for key in conversion.left if key.startswith('pyconvhead.')):
        raise InputError('no PyConvSegNet found: no key starts with pyconvhead.local_context or .global_context')
    conversion.layout = 'PyConvSegNet'
    conversion.rename_left([RenameRule(r'layer0\.0\.(.*)', r'conv1.\1'), RenameRule(r'layer0\.1\.(.*)', r'bn1.\1')])
    _convert_backbone(conversion)
    conversion.rename_left(rules)
    keys = {key: match for key in conversion.left if (match := _HEAD_KEY.fullmatch(key))}
    _check_levels(conversion, keys)
    for key, match in keys.items():
        conversion.place(key, _level_key(_HEAD[match[1]] + match[2]))


def _convert_backbone(conversion: Conversion) -> None:
    keys = conversion.matching(_BACKBONE_KEY)
    _check_levels(conversion, keys)
    for key in keys:
        conversion.place(key, f'backbone.{_level_key(key)}')


def _level_key(key: str) -> str:
    """Returns this package's key of a level: counted from 0, not from 1."""
    return re.sub(r'\.conv2_(\d+)\.', lambda match: f'.pyconv_levels.{int(match[1]) - 1}.', key)


def _check_levels(conversion: Conversion, keys) -> None:
    """Raises an error unless each pyramidal convolution has all its levels, with the channels of its norm."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for key in keys:
        if match := _LEVEL.fullmatch(key):
            numbers[match['conv']].append(int(match['number']))
    for conv, numbers_of_conv in numbers.items():
        missing = sorted(set(range(1, max(numbers_of_conv) + 1)) - set(numbers_of_conv))
        if missing:
            raise InputError(f'{conv}: the last level is number {max(numbers_of_conv)}, but {missing} miss')
        channels = sum(len(conversion.left[f'{conv}.conv2_{number}.weight']) for number in numbers_of_conv)
        stem, _, last = conv.rpartition('.')  # conv2 has the norm bn2; in the head layers.3 has layers.4
        name = f'{stem}.{int(last) + 1}' if last.isdigit() else f'{stem}.{last.replace("conv", "bn")}'
        norm = conversion.left.get(f'{name}.weight')
        if norm is not None and len(norm) != channels:
            raise InputError(
                f'{conv}: its {len(numbers_of_conv)} levels have {channels} channels, its norm {len(norm)}'
            )
