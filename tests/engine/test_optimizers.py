"""Optimizers of torch in their fastest form."""

import pytest
import torch

pytest.importorskip('mmengine')

from mmengine.optim import build_optim_wrapper
from packaging.version import parse as version
from torch import nn

from icconv_mm.engine.optimizers import FusedAdamW


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def test_updates_are_those_of_adamw():
    options = dict(lr=0.01, weight_decay=0.1, betas=(0.8, 0.99))
    pairs = [(net := network(), kind(net.parameters(), **options)) for kind in (torch.optim.AdamW, FusedAdamW)]
    for _ in range(20):
        x = torch.randn(4, 3)
        for net, optimizer in pairs:
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
    assert pairs[1][1].param_groups[0]['fused'] is (version(torch.__version__) >= version('2.4') or None)
    for parameter, other in zip(*(net.parameters() for net, _ in pairs)):
        torch.testing.assert_close(parameter, other, rtol=0, atol=1e-5)


def test_a_device_without_it_gets_the_plain_one(monkeypatch):
    """torch 2.1 refuses CPUs when the optimizer is made."""
    plain = torch.optim.AdamW

    def old(params, fused=False, **options):
        if fused:
            raise RuntimeError('`fused=True` requires all the params to be CUDA, floating point Tensor')
        return plain(params, **options)

    monkeypatch.setattr('icconv_mm.engine.optimizers.AdamW', old)
    optimizer = FusedAdamW((parameter for parameter in network().parameters()), lr=0.5)
    assert type(optimizer) is plain and optimizer.param_groups[0]['lr'] == 0.5
    assert [len(group['params']) for group in optimizer.param_groups] == [4]


def test_in_a_config_with_rates_of_its_own_for_some_parameters():
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='icconv_mm.FusedAdamW', lr=0.01),
        paramwise_cfg=dict(custom_keys={'2': dict(lr_mult=0.1)}),
    )
    optimizer = build_optim_wrapper(network(), cfg).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group['lr'] for group in optimizer.param_groups} == {0.01, 0.001}
