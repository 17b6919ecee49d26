"""Detectron's ResNets: the seven released layouts in small, and files with something missing."""

import pickle

import numpy as np
import pytest
import torch
from layouts import detectron_blobs
from random_weights import normal
from torch import nn

from icconv_mm.backbones.resnet import ResNet
from icconv_mm.checkpoints import convert, convert_file, read_detectron
from icconv_mm.checkpoints.convert import run_conversion

RESNEXT = {'groups': 4, 'base_width': 2}
# file -> settings of a narrow network, name of its classifier, layout that is reported
RELEASED = {
    'R-50': ({'depth': 50, 'style': 'caffe'}, 'fc1000', 'Detectron ResNet-50, batch norm'),
    'R-101': ({'depth': 101, 'style': 'caffe'}, 'fc1000', 'Detectron ResNet-101, batch norm'),
    'R-50-GN': ({'depth': 50, 'norm': 'gn'}, 'pred', 'Detectron ResNet-50, group norm'),
    'R-101-GN': ({'depth': 101, 'norm': 'gn'}, 'pred', 'Detectron ResNet-101, group norm'),
    'X-101-32x8d': ({'depth': 101, **RESNEXT}, 'pred', 'Detectron ResNeXt-101 4x2d, batch norm'),
    'X-101-64x4d': ({'depth': 101, **RESNEXT}, 'last_out_L1000', 'Detectron ResNeXt-101 4x2d, batch norm'),
    'X-152-32x8d-IN5k': ({'depth': 152, **RESNEXT}, 'pred', 'Detectron ResNeXt-152 4x2d, batch norm'),
}


def network(depth=50, norm='bn', **settings) -> ResNet:
    """A ResNet of random weights, with batch norms that only scale and shift, as Detectron's."""
    norm_cfg = {'type': 'GN', 'num_groups': 4} if norm == 'gn' else {'type': 'BN'}
    net = normal(ResNet(depth, base_channels=8, norm_cfg=norm_cfg, **settings).eval(), 0.1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.fill_(1 - module.eps)
    return net


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize('released', RELEASED)
def test_released_layouts(released, tmp_path):
    settings, classifier, layout = RELEASED[released]
    net = network(**settings)
    blobs = detectron_blobs(net, settings.get('norm', 'bn'), classifier)
    path = write(tmp_path / f'{released}.pkl', {'blobs': blobs, 'cfg': 'MODEL: {}'})
    conversion = convert_file(path, tmp_path / 'out.pth', 'detectron')
    assert conversion.layout == layout and not conversion.left
    written = torch.load(tmp_path / 'out.pth', weights_only=True)['state_dict']
    other = network(**settings)
    weights = {key.removeprefix('backbone.'): value for key, value in written.items() if not key.startswith('head')}
    other.load_state_dict(weights, strict=True)
    x = torch.randn(1, 3, 64, 48)
    for got, expected in zip(other(x), net(x), strict=True):
        torch.testing.assert_close(got, expected)
    assert torch.equal(written['head.fc.weight'], torch.from_numpy(blobs[f'{classifier}_w']))
    # as a config loads it
    other = network(**settings)
    other.load_state_dict(dict(written))
    torch.testing.assert_close(other(x), net(x))


def test_a_bias_of_the_first_convolution_goes_into_its_norm(tmp_path):
    """R-50 was converted from a Caffe network whose first convolution has one."""
    net = network()
    bias = torch.randn(8)
    blobs = {**detectron_blobs(net), 'conv1_b': bias.numpy()}
    state = convert(read_detectron(write(tmp_path / 'R-50.pkl', blobs)), 'detectron')
    other = network()
    other.load_state_dict(state)
    plain = nn.Conv2d(3, 8, 7, 2, 3)
    plain.weight, plain.bias = nn.Parameter(net.conv1.weight), nn.Parameter(bias)
    net.conv1 = plain
    x = torch.randn(1, 3, 64, 48)
    torch.testing.assert_close(other(x), net(x))


def without(*names):
    return lambda blobs: [blobs.pop(name) for name in names]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (without('conv1_w'), 'no Detectron ResNet found: there is no blob conv1_w'),
        (without('res3_1_branch2b_w'), 'res3_1: the weight of conv2 is missing'),
        (without('res2_0_branch1_w'), 'res2_0: the weight of downsample.0 is missing'),
        (without('res2_1_branch2a_bn_s'), r'layer1\.1\.conv1: its norm is missing'),
        (without('res2_1_branch2a_bn_b'), r'layer1\.1\.bn1\.bias: expected \[8\], found none'),
        (
            lambda blobs: blobs.update(res2_1_branch2a_bn_s=np.ones(3, np.float32)),
            r'layer1\.1\.bn1\.weight: expected \[8\], found \[3\]',
        ),
        (
            lambda blobs: [blobs.pop(name) for name in list(blobs) if name.startswith('res5_2')],
            r'the stages have \[3, 4, 6, 2\] blocks, expected \[3, 4, 6, 3\] \(depth 50\)',
        ),
        (
            lambda blobs: [blobs.pop(name) for name in list(blobs) if name.startswith('res4_2')],
            r'res4: blocks are missing, found \[0, 1, 3, 4, 5\]',
        ),
        (lambda blobs: blobs.update(fpn_inner_w=np.ones(3)), r'1 keys .* no counterpart .* fpn_inner_w'),
        (lambda blobs: blobs.update(conv1_w=np.full((8, 3, 7, 7), np.nan)), 'conv1_w has 1176 of 1176 values'),
    ],
)
def test_files_with_something_missing(change, message):
    blobs = detectron_blobs(network())
    change(blobs)
    with pytest.raises(ValueError, match=message):
        convert({name: torch.from_numpy(array) for name, array in blobs.items()}, 'detectron')


def test_of_a_whole_detector_the_backbone_alone_is_converted_where_asked_for(tool, tmp_path):
    net = network()
    blobs = detectron_blobs(net)
    for name in ('pred_w', 'pred_b'):
        del blobs[name]
    heads = ('fpn_inner_res5_2_sum', 'conv_rpn_fpn2', 'rpn_cls_logits_fpn2', 'fc6', 'fc7', 'cls_score', 'bbox_pred')
    blobs |= {f'{name}_{kind}': np.ones(3, np.float32) for name in heads for kind in 'wb'}
    path, out = write(tmp_path / 'model_final.pkl', {'blobs': blobs}), tmp_path / 'out.pth'
    with pytest.raises(SystemExit) as end:
        tool.main([str(path), str(out), '--source', 'detectron'])
    assert 'a whole detector (its backbone alone is converted)' in str(end.value)
    assert '--allow-unmatched' in str(end.value) and not out.exists()
    tool.main([str(path), str(out), '--source', 'detectron', '--allow-unmatched'])
    written = torch.load(out, weights_only=True)['state_dict']
    assert written.keys() == {f'backbone.{key}' for key in net.state_dict()}


@pytest.mark.parametrize('depth', [50, 101, 152])
@pytest.mark.parametrize('source', ['caffe', 'pyconv'])
def test_a_resnet_with_torchvisions_names(source, depth):
    """Caffe's ResNets, as FPT's authors load them, and the baselines of PyConv's paper."""
    net = ResNet(depth, base_channels=8, style='caffe' if source == 'caffe' else 'pytorch')
    state = {**net.state_dict(), 'fc.weight': torch.randn(10, 256), 'fc.bias': torch.randn(10)}
    conversion = run_conversion({'state_dict': {f'module.{key}': value for key, value in state.items()}}, source)
    assert conversion.layout == f'{"Caffe " if source == "caffe" else ""}ResNet-{depth}'
    converted = conversion.state_dict
    assert torch.equal(converted.pop('head.fc.weight'), state['fc.weight'])
    del converted['head.fc.bias']
    assert converted.keys() == {f'backbone.{key}' for key in net.state_dict()}
    assert all(torch.equal(converted[f'backbone.{key}'], value) for key, value in net.state_dict().items())
    del state['layer3.2.conv2.weight']
    with pytest.raises(ValueError, match=r'layer3_2: the weight of conv2 is missing'):
        convert(state, source)


def test_a_file_without_a_resnet_is_no_caffe_file():
    with pytest.raises(ValueError, match=r'the stages have \[0, 0, 0, 0\] blocks, expected \[3, 4, 6, 3\]'):
        convert({'conv.weight': torch.zeros(3)}, 'caffe')
