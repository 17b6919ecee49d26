"""What a test runs on."""

from types import SimpleNamespace

import torch
from torch import nn

from icconv_mm.layers import ICConv2d, ICConv2dReLU
from icconv_mm.registry import HOOKS


def test_the_model_of_the_runner_is_replaced():
    model = nn.Sequential(ICConv2d(3, 4, [(2, 1, 1), (2, 2, 2)]), nn.BatchNorm2d(4), nn.ReLU()).eval()
    model[1].running_mean += 0.3
    runner = SimpleNamespace(model=model)
    HOOKS.build({'type': 'DeployHook'}).before_test_epoch(runner)
    assert type(runner.model[0]) is ICConv2dReLU and type(model[0]) is ICConv2d
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(runner.model(x), model(x), rtol=1e-4, atol=1e-4)
