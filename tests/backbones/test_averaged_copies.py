"""Copies of a network whose frozen weights a hook of the libraries averages, past torch's counter of changes."""

import copy

import pytest
import torch
from torch import nn

from icconv_mm.backbones import ICResNet, PyConvResNet
from icconv_mm.ops import use_backend

X = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def network(kind: type) -> nn.Module:
    torch.manual_seed(0)
    options = {'pattern': 'geometric_d4'} if kind is ICResNet else {}
    return kind(18, base_channels=16, stem_channels=16, **options)


def jitter(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 0.1 * torch.randn_like(parameter))


@torch.no_grad()
def check(model: nn.Module) -> None:
    got = model.eval()(X)[-1]
    with use_backend('reference'):
        expected = copy.deepcopy(model).double()(X.double())[-1]
    torch.testing.assert_close(got.double(), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize('kind', [ICResNet, PyConvResNet])
def test_exponential_moving_average(kind):
    average = pytest.importorskip('mmengine.model').ExponentialMovingAverage
    student = network(kind)
    teacher = average(student, momentum=0.5)
    for _ in range(4):
        check(teacher.module)
        jitter(student)
        teacher.update_parameters(student)


def test_mean_teacher():
    hook = pytest.importorskip('mmdet.engine.hooks').MeanTeacherHook(momentum=0.5, skip_buffer=True)
    pair = nn.Module()
    pair.student = network(ICResNet)
    pair.teacher = copy.deepcopy(pair.student).requires_grad_(False)
    for _ in range(4):
        check(pair.teacher)
        jitter(pair.student)
        hook.momentum_update(pair, 0.5)
