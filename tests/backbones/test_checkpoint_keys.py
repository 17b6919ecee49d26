"""Checkpoints of dense networks, in the layouts in which they are published, loaded into IC-ResNets."""

import logging

import pytest
import torch
import torchvision
from mmengine.logging import MMLogger

from icconv_mm.backbones import ICResNet, ICResNeXt, PyConvResNet
from icconv_mm.backbones.resnet import ResNet
from icconv_mm.checkpoints.matching import ArchitectureMismatchError

HEADS = ('neck.lateral_convs.0.conv.weight', 'rpn_head.rpn_conv.weight', 'roi_head.bbox_head.fc_cls.bias')


def torchvision_layout(name='resnet18'):
    return getattr(torchvision.models, name)().state_dict()


def mmdet_layout():
    state = {f'backbone.{key}': value for key, value in ResNet(18).state_dict().items()}
    return {'meta': {'epoch': 12}, 'state_dict': state | {key: torch.ones(1) for key in HEADS}}


def mmpretrain_layout():
    state = {f'backbone.{key}': value for key, value in ResNet(18).state_dict().items()}
    return {'meta': {}, 'state_dict': state | {'head.fc.weight': torch.ones(10, 512), 'head.fc.bias': torch.ones(10)}}


def deep_stem_layout():
    state = ResNet(18, deep_stem=True, avg_down=True).state_dict()
    return {'state_dict': {f'backbone.{key}': value for key, value in state.items()}}


def distributed_layout():
    return {'state_dict': {f'module.{key}': value for key, value in torchvision_layout().items()}}


@pytest.fixture
def messages(monkeypatch):
    """What mmengine says while loading: it reports missing and unexpected keys, and goes on."""
    said = []
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handle', lambda record: said.append(record.getMessage()))
    monkeypatch.setattr(logger, 'level', logging.INFO)
    return said


@pytest.mark.parametrize(
    ('layout', 'settings'),
    [
        (torchvision_layout, {}),
        (mmdet_layout, {}),
        (mmpretrain_layout, {}),
        (distributed_layout, {}),
        (deep_stem_layout, {'deep_stem': True, 'avg_down': True}),
    ],
)
@pytest.mark.parametrize('pattern', ['dense', 'geometric_d4'])
def test_pretrained_weights_load_without_a_message(layout, settings, pattern, tmp_path, messages, capsys):
    checkpoint = layout()
    torch.save(checkpoint, tmp_path / 'dense.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'dense.pth')}
    net = ICResNet(18, pattern, init_cfg=init_cfg, **settings)
    net.init_weights()
    said = '\n'.join(messages) + capsys.readouterr().out
    assert 'load model from' in said
    assert not any(word in said for word in ('missing', 'unexpected', 'mismatch', 'do not match'))
    source = {
        k.split('backbone.')[-1].split('module.')[-1]: v for k, v in checkpoint.get('state_dict', checkpoint).items()
    }
    for key, value in net.state_dict().items():
        assert torch.equal(value, source[key]), key


def test_prefix_of_mmengine(tmp_path, messages):
    torch.save(mmdet_layout(), tmp_path / 'dense.pth')
    init_cfg = {'type': 'Pretrained', 'checkpoint': str(tmp_path / 'dense.pth'), 'prefix': 'backbone.'}
    net = ICResNet(18, 'dense', init_cfg=init_cfg)
    net.init_weights()
    assert not any('missing' in text or 'unexpected' in text for text in messages)


@pytest.mark.parametrize(
    ('name', 'build'),
    [
        ('resnet34', lambda: ICResNet(34, 'geometric_d4')),
        ('resnet50', lambda: ICResNet(50, 'geometric_d4')),
        ('resnext50_32x4d', lambda: ICResNeXt(50, 'geometric_d4')),
    ],
)
def test_strict_loading_there_and_back(name, build):
    """A dense state dict fits an IC network strictly, and its state dict a dense network."""
    net, dense = build(), getattr(torchvision.models, name)()
    assert str(net.load_state_dict(dense.state_dict())) == '<All keys matched successfully>'
    back = net.state_dict()
    assert list(back) == [key for key in dense.state_dict() if not key.startswith('fc.')]
    assert all(torch.equal(back[key], dense.state_dict()[key]) for key in back)


def test_strict_loading_of_another_network_fails():
    with pytest.raises(ArchitectureMismatchError, match=r'missing in .*layer1\.2 \(10: conv1\.weight'):
        ICResNet(34, 'dense').load_state_dict(torchvision_layout('resnet18'))
    with pytest.raises(ArchitectureMismatchError, match=r'not in the model .*layer1\.2 \(12: conv1\.weight'):
        ICResNet(18, 'dense').load_state_dict(torchvision_layout('resnet34'))
    with pytest.raises(ArchitectureMismatchError, match=r'pyconv_levels.*(?s:.*) no pyramidal network.*init_cfg=None'):
        PyConvResNet(18).load_state_dict(torchvision_layout('resnet18'))


def test_inside_a_model_the_keys_are_its_own():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = ICResNet(18, 'dense')
            self.fc = torch.nn.Linear(512, 10)

    model, other = Model(), Model()
    model.load_state_dict(other.state_dict())
    assert torch.equal(model.fc.weight, other.fc.weight)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*backbone\.fc\.weight'):
        model.load_state_dict(other.state_dict() | {'backbone.fc.weight': torch.ones(1)})


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_official_checkpoints_name_the_converter(prefix):
    state = {f'{prefix}{key}': value for key, value in ResNet(18).state_dict().items()}
    weight = state.pop(f'{prefix}layer1.0.conv1.weight')
    state[f'{prefix}layer1.0.conv1.conv_list.0.weight'] = weight
    with pytest.raises(ValueError, match=r'conv_list.*tools/convert_checkpoint\.py'):
        ICResNet(18, 'dense').load_state_dict(state)


def test_the_state_dict_given_is_not_changed():
    state = torchvision_layout()
    keys = list(state)
    ICResNet(18, 'dense').load_state_dict(state)
    assert list(state) == keys
