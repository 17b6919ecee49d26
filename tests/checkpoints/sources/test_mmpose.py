"""Conversion of associative-embedding estimators of mmpose 0.x and 1.x."""

import pytest
import torch
from layouts import bottom_up_pose, classifier, resnet, with_prefix

from icconv_mm.checkpoints import UnmatchedKeysError, convert
from icconv_mm.checkpoints.convert import run_conversion

WIDTH, FILTERS = 8, 16
NORM = ('weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked')
DECONVOLUTIONS = {
    *(f'deconv_layers.{layer}.weight' for layer in (0, 3, 6)),
    *(f'deconv_layers.{layer}.{name}' for layer in (1, 4, 7) for name in NORM),
}
LAST = {'final_layer.weight', 'final_layer.bias'}
TWO_CONVOLUTIONS = {
    *(f'conv_layers.{layer}.{name}' for layer in (0, 3) for name in ('weight', 'bias')),
    *(f'conv_layers.{layer}.{name}' for layer in (1, 4) for name in NORM),
}


def dense(version, convs=0, depth=18):
    return bottom_up_pose(depth, WIDTH, FILTERS, sub_convolutions=False, convs=convs, version=version)


@pytest.mark.parametrize('version', [0, 1])
@pytest.mark.parametrize(('convs', 'head'), [(0, DECONVOLUTIONS | LAST), (2, DECONVOLUTIONS | LAST | TWO_CONVOLUTIONS)])
@pytest.mark.parametrize('depth', [18, 50])
def test_keys_are_those_of_today(version, convs, head, depth):
    conversion = run_conversion(dense(version, convs, depth), 'mmpose')
    expected = {f'backbone.{key}' for key in resnet(depth, WIDTH, sub_convolutions=False)}
    assert set(conversion.state_dict) == expected | {f'head.{key}' for key in head}
    assert conversion.layout == f'mmpose {version}.x bottom-up' and not conversion.left


def test_values_move_with_their_names():
    state = dense(0, convs=2)
    converted = convert({'state_dict': with_prefix('module.', state), 'optimizer': {}}, 'mmpose')
    for old, new in {
        'backbone.layer2.0.conv1.weight': 'backbone.layer2.0.conv1.weight',
        'keypoint_head.deconv_layers.4.running_var': 'head.deconv_layers.4.running_var',
        'keypoint_head.final_layer.0.weight': 'head.conv_layers.0.weight',
        'keypoint_head.final_layer.4.running_mean': 'head.conv_layers.4.running_mean',
        'keypoint_head.final_layer.6.bias': 'head.final_layer.bias',
    }.items():
        assert torch.equal(converted[new], state[old]), old
    assert len(converted) == len(state)


def test_version_1_is_unchanged():
    state = dense(1, convs=1)
    converted = convert(state, 'mmpose')
    assert set(converted) == set(state)
    assert all(converted[key] is value for key, value in state.items())


@pytest.mark.parametrize('version', [0, 1])
def test_heads_of_both_versions_behind_sub_convolutions(version):
    state = bottom_up_pose(18, WIDTH, FILTERS, convs=1, version=version)
    conversion = run_conversion(state, 'ic-conv')
    assert conversion.layout == f'mmpose {version}.x bottom-up' and not conversion.left
    assert {'head.conv_layers.0.weight', 'head.final_layer.weight'} <= set(conversion.state_dict)


def build(convs=0, **backbone):
    pytest.importorskip('mmpose')
    from mmengine.registry import init_default_scope
    from mmpose.registry import MODELS

    init_default_scope('mmpose')
    head = dict(
        type='icconv_mm.AEHead',
        in_channels=8 * WIDTH,
        num_keypoints=17,
        deconv_out_channels=(FILTERS,) * 3,
        conv_out_channels=(FILTERS,) * convs,
        conv_kernel_sizes=(3,) * convs,
    )
    narrow = dict(base_channels=WIDTH, stem_channels=WIDTH)
    network = dict(type='icconv_mm.ICResNet', depth=18, **narrow, out_indices=(3,), **backbone)
    return MODELS.build(dict(type='icconv_mm.AEPoseEstimator', backbone=network, head=head)).eval()


@pytest.mark.parametrize('convs', [0, 2])
@pytest.mark.parametrize('pattern', ['dense', 'geometric_d4'])
def test_round_trip(convs, pattern):
    """0.x -> today's model, which takes all of it; what that model saves is 1.x, which converts to itself."""
    converted = convert(dense(0, convs), 'mmpose')
    model = build(convs, pattern=pattern)
    model.load_state_dict(converted, strict=True)
    again = convert({'meta': {}, 'state_dict': model.state_dict()}, 'mmpose')
    assert set(again) == set(converted)
    assert all(torch.equal(again[key], value) for key, value in converted.items())


@pytest.mark.parametrize('convs', [0, 2])
def test_head_is_what_the_upgrade_of_mmpose_makes_of_it(convs):
    """mmpose 1.x upgrades heads of 0.x by itself when it loads them; names and outputs agree with ours."""
    from mmpose.models.heads import AssociativeEmbeddingHead

    state = dense(0, convs)
    old = {key.removeprefix('keypoint_head.'): value for key, value in state.items() if 'keypoint_head' in key}
    upstream = AssociativeEmbeddingHead(
        8 * WIDTH,
        17,
        deconv_out_channels=(FILTERS,) * 3,
        conv_out_channels=(FILTERS,) * convs,
        conv_kernel_sizes=(3,) * convs,
        tag_loss=dict(type='mmpose.AssociativeEmbeddingLoss'),
        keypoint_loss=dict(type='mmpose.KeypointMSELoss'),
    ).eval()
    upstream.load_state_dict(old, strict=True)
    model = build(convs, pattern='dense')
    model.load_state_dict(convert(state, 'mmpose'), strict=True)
    feats = [torch.randn(2, 8 * WIDTH, 3, 4)]
    with torch.no_grad():
        for got, expected in zip(model.head(feats), upstream(feats)):
            assert torch.isfinite(got).all() and torch.equal(got, expected)


def test_of_two_backbones_one_is_chosen():
    state = with_prefix('student.', dense(0)) | with_prefix('teacher.', dense(0))
    with pytest.raises(ValueError, match=r"2 ResNets, under 'student\.backbone\.', 'teacher\.backbone\.'"):
        convert(state, 'mmpose')
    converted = convert(state, 'mmpose', backbone_prefix='teacher.backbone.', allow_unmatched=True)
    assert 'head.final_layer.weight' in converted


@pytest.mark.parametrize(
    ('state', 'options', 'message'),
    [
        ({'backbone.stage2.0.branches.0.0.conv1.weight': torch.zeros(1)}, {}, 'no ResNet found'),
        (bottom_up_pose(18, WIDTH, FILTERS), {}, "converted with source 'ic-conv'"),
        (dense(0), {'pattern': 'dense'}, "source 'mmpose' has no option pattern"),
    ],
    ids=['HRNet', 'sub-convolutions', 'pattern'],
)
def test_other_files_are_refused(state, options, message):
    with pytest.raises(ValueError, match=message):
        convert(state, 'mmpose', **options)


def test_other_heads_are_listed():
    state = with_prefix('backbone.', resnet(18, WIDTH, sub_convolutions=False))
    state['keypoint_head.final_layers.0.weight'] = torch.zeros(34, 4, 1, 1)  # of HigherHRNet
    with pytest.raises(UnmatchedKeysError, match=r"1 keys .* 'unknown'.*keypoint_head\.final_layers"):
        convert(state, 'mmpose')


def test_the_other_source_says_where_to_go():
    with pytest.raises(ValueError, match=r"dense estimator of mmpose 0\.x is converted with source 'mmpose'"):
        convert(dense(0), 'ic-conv')
    dense_classifier = {key: value for key, value in classifier(18, WIDTH).items() if 'conv_list' not in key}
    with pytest.raises(ValueError, match='loads as it is'):
        convert(dense_classifier, 'ic-conv')
