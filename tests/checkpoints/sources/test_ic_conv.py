"""Conversion of the files released with IC-Conv."""

import copy
import json

import pytest
import torch
from layouts import BLOCKS, bottom_up_pose, classifier, resnet, runs_of, with_prefix

from icconv_mm.checkpoints import UnmatchedKeysError, convert
from icconv_mm.checkpoints.convert import run_conversion

WIDTH = 16


@pytest.fixture(scope='module')
def released():
    return classifier(18, WIDTH)


def dense_keys(depth=18):
    return list(resnet(depth, WIDTH, sub_convolutions=False))


def test_sub_convolutions_become_one_weight_in_numeric_order(released):
    converted = convert(released, 'ic-conv')
    parts = [released[f'layer2.1.conv2.conv_list.{index}.weight'] for index in range(12)]
    assert torch.equal(converted['backbone.layer2.1.conv2.weight'], torch.cat(parts))


def test_file_order_of_keys_does_not_matter(released):
    shuffled = dict(sorted(released.items()))  # alphabetical: conv_list.10 before conv_list.2
    expected = convert(released, 'ic-conv')
    converted = convert(shuffled, 'ic-conv')
    assert all(torch.equal(converted[key], value) for key, value in expected.items())


def test_other_keys_keep_name_and_values(released):
    converted = convert(released, 'ic-conv')
    assert set(converted) == {f'backbone.{key}' for key in dense_keys()} | {'head.fc.weight', 'head.fc.bias'}
    assert torch.equal(converted['backbone.bn1.running_var'], released['bn1.running_var'])
    assert torch.equal(converted['backbone.layer3.0.downsample.0.weight'], released['layer3.0.downsample.0.weight'])
    assert torch.equal(converted['head.fc.weight'], released['fc.weight'])
    assert converted['backbone.bn1.num_batches_tracked'].dtype == torch.int64


def test_input_is_not_changed(released):
    before = dict(released)
    convert(released, 'ic-conv')
    assert released == before or list(released) == list(before)
    assert all(released[key] is value for key, value in before.items())


def test_half_precision_stays(released):
    half = {key: value.half() if value.is_floating_point() else value for key, value in released.items()}
    assert convert(half, 'ic-conv')['backbone.layer1.0.conv1.weight'].dtype == torch.float16


WRAPPINGS = {
    'bare': lambda state: state,
    'state_dict': lambda state: {'epoch': 90, 'state_dict': state, 'optimizer': {'state': {}, 'param_groups': []}},
    'module': lambda state: with_prefix('module.', state),
    'module in state_dict': lambda state: {'best_acc': 0.79, 'state_dict': with_prefix('module.', state)},
    'model': lambda state: {'epoch': 14, 'model': with_prefix('module.', state), 'optimizer': {}, 'lr_scheduler': {}},
    'twice': lambda state: {'model': {'state_dict': with_prefix('module.module.', state)}},
}


@pytest.mark.parametrize('wrapping', WRAPPINGS)
def test_wrappings_come_off(released, wrapping):
    converted = convert(WRAPPINGS[wrapping](released), 'ic-conv')
    expected = convert(released, 'ic-conv')
    assert list(converted) == list(expected)
    assert all(torch.equal(converted[key], value) for key, value in expected.items())


@pytest.mark.parametrize('prefix', ['backbone.', 'encoder.', 'model.backbone.', 'net.body.resnet.'])
def test_backbone_is_found_under_any_prefix(prefix):
    converted = convert(with_prefix(prefix, resnet(18, WIDTH)), 'ic-conv')
    assert set(converted) == {f'backbone.{key}' for key in dense_keys()}


def test_outer_prefix_comes_off_the_heads_too(released):
    converted = run_conversion(with_prefix('model.', bottom_up_pose(18, WIDTH, 32)), 'ic-conv')
    assert converted.layout == 'mmpose 0.x bottom-up'
    assert 'head.final_layer.bias' in converted.state_dict


def test_bottom_up_pose_head():
    state = bottom_up_pose(18, WIDTH, 32)
    converted = convert(state, 'ic-conv')
    head = {key: value for key, value in state.items() if key.startswith('keypoint_head.')}
    assert len(converted) == len(dense_keys()) + len(head)
    for key, value in head.items():
        assert torch.equal(converted[key.replace('keypoint_head.', 'head.')], value)


def test_unknown_layout_converts_the_backbone_and_refuses_the_rest():
    state = with_prefix('backbone.', resnet(18, WIDTH))
    state |= {f'neck.p{level}.lateral.weight': torch.zeros(4, 4, 1, 1) for level in (2, 3, 4, 5)}
    with pytest.raises(UnmatchedKeysError, match=r'^4 keys of .* .unknown.*neck\.p2\.lateral\.weight') as info:
        convert(state, 'ic-conv')
    assert set(info.value.conversion.left) == {f'neck.p{level}.lateral.weight' for level in (2, 3, 4, 5)}
    converted = convert(state, 'ic-conv', allow_unmatched=True)
    assert set(converted) == {f'backbone.{key}' for key in dense_keys()}


def test_every_key_is_accounted_for(released):
    conversion = run_conversion(released, 'ic-conv')
    assert sorted(key for move in conversion.moves for key in move.old) == sorted(released)
    assert [move.new for move in conversion.moves] == list(conversion.state_dict)
    assert conversion.layout == 'classifier'


def broken(released, **changes):
    state = copy.copy(released)
    for key, value in changes.items():
        key = key.replace('__', '.')
        if value is None:
            del state[key]
        else:
            state[key] = value
    return state


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'layer1__0__conv2__conv_list__3__weight': None},
            r'layer1\.0\.conv2: conv_list has 11 weights, the last is number 11, but \[3\] miss',
        ),
        (
            {'layer1__0__conv2__conv_list__11__weight': None},
            r'layer1\.0\.conv2: its 11 sub-convolutions have 15 channels, its norm 16',
        ),
        (
            {'layer1__0__conv2__conv_list__3__weight': torch.zeros(1, WIDTH, 5, 5)},
            r'conv_list\.3\.weight: expected \[n, 16, 3, 3\], found \[1, 16, 5, 5\]',
        ),
        (
            {'layer4__1__bn2__weight': torch.full((8 * WIDTH,), float('nan'))},
            r'layer4\.1\.bn2\.weight has 128 of 128 values that are NaN or infinite',
        ),
        ({'conv1__weight': [1, 2]}, r"1 entries among the weights are not tensors: 'conv1\.weight' \(list\)"),
    ],
    ids=['missing in the middle', 'missing at the end', 'other kernel', 'NaN', 'not a tensor'],
)
def test_broken_files_are_refused(released, changes, message):
    with pytest.raises(ValueError, match=message):
        convert(broken(released, **changes), 'ic-conv')


def test_files_without_sub_convolutions_are_refused(released):
    with pytest.raises(ValueError, match='dense ResNet, or converted already'):
        convert(convert(released, 'ic-conv'), 'ic-conv')
    with pytest.raises(ValueError, match='no IC-Conv backbone found'):
        convert({'stem.weight': torch.zeros(3)}, 'ic-conv')
    with pytest.raises(ValueError, match="no weights found: the file holds 'epoch', 'optimizer'"):
        convert({'epoch': 3, 'optimizer': {}}, 'ic-conv')
    with pytest.raises(ValueError, match='no weights found: the file holds nothing'):
        convert({}, 'ic-conv')
    with pytest.raises(ValueError, match=r'no source timm; there are: .*ic-conv'):
        convert(released, 'timm')


def pattern_file(path, released, swap=None):
    """A pattern whose runs are the file's, in the published form."""
    convs = [f'layer{s}.{b}.conv{c}' for s, blocks in enumerate(BLOCKS[18], 1) for b in range(blocks) for c in (1, 2)]
    layers = []
    for conv in convs:
        runs = runs_of(WIDTH * 2 ** (int(conv[5]) - 1))
        if conv == swap:
            runs = runs[::-1]
        layers.append({f'({i // 4}, {i % 4})': n for i, n in enumerate(runs)})
    path.write_text(json.dumps(layers))
    return str(path)


def test_pattern_is_checked_run_by_run(released, tmp_path):
    convert(released, 'ic-conv', pattern=pattern_file(tmp_path / 'same.json', released))
    other = pattern_file(tmp_path / 'other.json', released, swap='layer3.1.conv2')
    with pytest.raises(ValueError, match=r'^layer3\.1\.conv2: pattern .*other\.json has .* \[2, .*, the file \[42, '):
        convert(released, 'ic-conv', pattern=other)


def test_grouped_file_agrees_with_a_pattern_that_counts_in_groups(tmp_path):
    """ResNeXt: a run of n groups is n * 4 channels at this width, each with 4 input channels."""
    groups, runs = 4, [2, 1, 1]
    state = {f'layer1.0.conv2.conv_list.{i}.weight': torch.randn(4 * n, 4, 3, 3) for i, n in enumerate(runs)}
    (tmp_path / 'x.json').write_text(json.dumps([{'(0, 0)': 2, '(0, 1)': 1, '(3, 0)': 1}]))
    converted = convert(state, 'ic-conv', pattern=str(tmp_path / 'x.json'))
    assert converted['backbone.layer1.0.conv2.weight'].shape == (4 * groups, 4, 3, 3)
