"""Files released with PyConv: every key finds its place, and what is broken is refused."""

import re

import pytest
import torch
from layouts import pyconv as official

from icconv_mm.backbones import PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.checkpoints import UnmatchedKeysError, convert, load_rules
from icconv_mm.checkpoints.convert import run_conversion


@pytest.fixture(scope='module')
def released():
    """A classifier: ``conv1`` to ``layer4``, and ``fc``."""
    net = PyConvResNet(18, base_channels=16, stage_groups=[(1, 2, 4, 4), (1, 2, 4), (1, 4), (1,)])
    return official(net) | {'fc.weight': torch.randn(10, 128), 'fc.bias': torch.randn(10)}


def test_classifier(released):
    wrapped = {'epoch': 90, 'state_dict': {f'module.{key}': value for key, value in released.items()}, 'optimizer': {}}
    conversion = run_conversion(wrapped, 'pyconv')
    assert conversion.layout == 'classifier' and not conversion.left
    converted = conversion.state_dict
    assert len(converted) == len(released)
    level = 'layer1.0.conv1'
    assert torch.equal(converted[f'backbone.{level}.pyconv_levels.2.weight'], released[f'{level}.conv2_3.weight'])
    assert torch.equal(converted['head.fc.bias'], released['fc.bias'])
    assert sorted(key for move in conversion.moves for key in move.old) == sorted(released)


def test_converted_weights_load(released):
    net = PyConvResNet(18, base_channels=16, stage_groups=[(1, 2, 4, 4), (1, 2, 4), (1, 4), (1,)])
    net.load_state_dict(convert(released, 'pyconv'))
    assert torch.equal(net.layer2[1].conv1.pyconv_levels[0].weight, released['layer2.1.conv1.conv2_1.weight'])


def head_keys():
    """The official keys of a small PyConvSegNet's head, with shapes."""
    shapes = {'cls.1.weight': (3, 4, 1, 1), 'cls.1.bias': (3,), 'aux.4.weight': (3, 4, 1, 1)}
    for branch, first in (('local_context.layers', 0), ('global_context.features', 1)):
        for number in range(1, 5):
            shapes[f'pyconvhead.{branch}.{first + 3}.conv2_{number}.weight'] = (16, 64, 3, 3)
        shapes[f'pyconvhead.{branch}.{first + 4}.weight'] = (64,)
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_head():
    converted = convert(official(ResNet(18, base_channels=8)) | head_keys(), 'pyconvsegnet')
    state = head_keys()
    assert set(converted) >= {
        'decode_head.local_context.pyconv.pyconv_levels.0.weight',
        'decode_head.global_context.pyconv.pyconv_levels.3.weight',
        'decode_head.global_context.norm.weight',
        'decode_head.conv_seg.bias',
        'auxiliary_head.conv_seg.weight',
    }
    assert len(converted) == len(state) + len(ResNet(18, base_channels=8).state_dict())


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


def test_broken_files_are_refused(released):
    level = 'layer1.0.conv1.conv2_2.weight'
    with pytest.raises(ValueError, match=r'layer1\.0\.conv1: the last level is number 4, but \[2\] miss'):
        convert(without(released, level), 'pyconv')
    with pytest.raises(ValueError, match=r'layer1\.0\.conv1: its 3 levels have 12 channels, its norm 16'):
        convert(without(released, 'layer1.0.conv1.conv2_4.weight'), 'pyconv')
    with pytest.raises(ValueError, match=r'bn1\.weight has 16 of 16 values that are NaN'):
        convert(released | {'bn1.weight': torch.full((16,), float('nan'))}, 'pyconv')
    head = 'pyconvhead.local_context.layers.3'
    with pytest.raises(ValueError, match=rf'{re.escape(head)}: the last level is number 4, but \[1\] miss'):
        convert(without(head_keys(), f'{head}.conv2_1.weight'), 'pyconvsegnet')
    with pytest.raises(ValueError, match=rf'{re.escape(head)}: its 3 levels have 48 channels, its norm 64'):
        convert(without(head_keys(), f'{head}.conv2_4.weight'), 'pyconvsegnet')


def test_files_of_another_kind_name_what_they_are(released):
    with pytest.raises(ValueError, match="the file has the keys of PyConvSegNet: its source is 'pyconvsegnet'"):
        convert(head_keys(), 'pyconv')
    with pytest.raises(ValueError, match='it is converted already, and loads as it is'):
        convert(convert(released, 'pyconv'), 'pyconv')
    with pytest.raises(
        ValueError, match=r'no PyConv classifier found: .* no key that ends in layerL\.B\.convC\.conv2_N'
    ):
        convert(ResNet(18, base_channels=8).state_dict(), 'pyconv')
    with pytest.raises(ValueError, match='no PyConvSegNet found'):
        convert(released, 'pyconvsegnet')
    with pytest.raises(ValueError, match="the source 'pyconv' has no option pattern"):
        convert(released, 'pyconv', pattern='dense')


def test_unknown_keys_are_refused_or_ruled(released, tmp_path):
    state = released | {'ema.decay': torch.ones(1)}
    with pytest.raises(UnmatchedKeysError, match=r"^1 keys of .*'classifier'.*ema\.decay"):
        convert(state, 'pyconv')
    (tmp_path / 'rules.yml').write_text("- {pattern: 'ema\\..*', replace: null}")
    assert len(convert(state, 'pyconv', rules=load_rules(tmp_path / 'rules.yml'))) == len(released)
    assert len(convert(state, 'pyconv', allow_unmatched=True)) == len(released)
    with pytest.raises(UnmatchedKeysError, match=r"^1 keys of .*'PyConvSegNet'.*ppm\.weight"):
        convert(head_keys() | {'ppm.weight': torch.ones(1)}, 'pyconvsegnet')
