"""Every backbone of the package deployed, in all variants."""

import pytest
import torch
from deployed_checks import checked, count, norms
from torch import nn

from icconv_mm.backbones import ICResNet, ICResNeXt, PyConvHGResNet, PyConvResNet
from icconv_mm.layers import ICConv2d, ICConv2dReLU, PyConv2d, PyConv2dReLU

IC = {'pattern': 'geometric_d4', 'base_channels': 16}
PY = {'base_channels': 64}
# network -> its settings, and the numbers of fused inception and pyramidal convolutions
NETWORKS = {
    'IC-R18': (ICResNet, {'depth': 18, **IC}, (8, 0)),
    'IC-R50 deep stem, avg_down': (ICResNet, {'depth': 50, **IC, 'deep_stem': True, 'avg_down': True}, (16, 0)),
    'IC-R50 dilated': (ICResNet, {'depth': 50, **IC, 'output_stride': 8, 'contract_dilation': True}, (16, 0)),
    'IC-R50 SyncBN': (ICResNet, {'depth': 50, **IC, 'norm_cfg': {'type': 'SyncBN'}}, (16, 0)),
    'IC-R50 frozen': (ICResNet, {'depth': 50, **IC, 'frozen_stages': 2, 'norm_eval': True}, (16, 0)),
    'supernet': (ICResNet, {'depth': 18, 'supernet_d_max': 2, 'base_channels': 16}, (0, 0)),
    'IC-ResNeXt': (ICResNeXt, {'depth': 50, **IC, 'groups': 4}, (16, 0)),
    'PyConvResNet-18': (PyConvResNet, {'depth': 18, **PY}, (0, 6)),
    'PyConvResNet-50': (PyConvResNet, {'depth': 50, **PY}, (0, 13)),
    'PyConvResNet-50 SyncBN, deep stem': (
        PyConvResNet,
        {'depth': 50, **PY, 'norm_cfg': {'type': 'SyncBN'}, 'deep_stem': True, 'output_stride': 16},
        (0, 13),
    ),
    'PyConvHGResNet-50': (PyConvHGResNet, {'depth': 50, **PY}, (0, 13)),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_every_norm_is_folded(name):
    kind, settings, fused = NETWORKS[name]
    network = kind(**settings)
    before = {key: value.clone() for key, value in network.state_dict().items() if 'running' not in key}
    deployed = checked(network, torch.randn(2, 3, 64, 96))
    assert not norms(deployed)
    assert (count(deployed, ICConv2dReLU), count(deployed, PyConv2dReLU)) == fused
    assert type(deployed) is kind and not deployed.training
    # the given network still is what it was
    assert type(network) is kind and set(before) < set(network.state_dict())
    assert not count(network, ICConv2dReLU) and any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(('kind', 'settings'), [(ICResNet, IC), (PyConvResNet, PY)], ids=['IC', 'PyConv'])
def test_group_norm_stays(kind, settings):
    network = kind(depth=50, **settings, norm_cfg={'type': 'GN', 'num_groups': 4})
    with pytest.warns(UserWarning, match=rf'deploy: {kind.__name__} has no norm to fold and no ReLU to fuse'):
        deployed = checked(network, torch.randn(1, 3, 64, 64))
    assert count(deployed, nn.GroupNorm) == count(network, nn.GroupNorm) > 0
    assert count(deployed, ICConv2d) + count(deployed, PyConv2d) > 0


def test_a_norm_without_statistics_stays():
    network = ICResNet(18, 'geometric_d4', base_channels=16, norm_cfg={'type': 'BN', 'track_running_stats': False})
    with pytest.warns(UserWarning, match='no norm to fold'):
        deployed = checked(network, torch.randn(2, 3, 64, 64))
    assert len(norms(deployed)) == len(norms(network))


def test_norms_without_parameters():
    network = ICResNet(18, 'geometric_d4', base_channels=16)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition('.')
            setattr(network.get_submodule(parent), child, nn.BatchNorm2d(module.num_features, affine=False))
    assert not norms(checked(network, torch.randn(1, 3, 64, 64)))


def test_weights_are_channels_last():
    deployed = checked(ICResNet(50, 'geometric_d4', base_channels=16), torch.randn(1, 3, 64, 64))
    weights = [p for p in deployed.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    x = torch.randn(1, 3, 64, 64)
    assert all(out.is_contiguous() for out in deployed(x))
    outputs = deployed(x.contiguous(memory_format=torch.channels_last))
    assert all(out.is_contiguous(memory_format=torch.channels_last) for out in outputs)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes(dtype):
    network = ICResNet(18, 'geometric_d4', base_channels=16)
    deployed = checked(network, torch.randn(1, 3, 64, 64)).to(dtype)
    x = torch.randn(1, 3, 64, 64)
    for got, expected in zip(deployed(x.to(dtype)), network(x)):
        assert got.dtype == dtype
        assert ((got - expected).abs().max() / expected.abs().max()).item() < (0.1 if dtype == torch.bfloat16 else 1e-4)
