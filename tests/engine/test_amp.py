"""Mixed precision on a CPU."""

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.optim import SGD

from icconv_mm.engine.amp import CPUAmpOptimWrapper
from icconv_mm.errors import InputError


class Seen(nn.Identity):
    """Records the precision that passes."""

    def forward(self, x):
        self.dtype = x.dtype
        return x


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Seen())
        self.neck = nn.Conv2d(4, 4, 1)
        self.head = nn.Sequential(Seen(), nn.Conv2d(4, 2, 1), Seen())

    def forward(self, x):
        return self.head(self.neck(self.backbone(x))).float().square().mean()


def step(model, wrapper):
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    with wrapper.optim_context(model):
        loss = model(x)
    wrapper.update_params(loss)
    return loss.item()


@pytest.mark.parametrize('modules', [None, ('backbone', 'neck')])
def test_where_bfloat16_is_used(modules):
    model = Detector()
    step(model, CPUAmpOptimWrapper(modules, optimizer=SGD(model.parameters(), 0.1)))
    low, full = torch.bfloat16, torch.float32
    outside = low if modules is None else full
    assert model.backbone[1].dtype is low
    assert model.head[0].dtype is model.head[2].dtype is outside
    assert all(parameter.dtype is full for parameter in model.parameters())


def test_module_is_left_as_it_was():
    model = Detector()
    step(model, CPUAmpOptimWrapper(('backbone',), optimizer=SGD(model.parameters(), 0.1)))
    assert 'forward' not in vars(model.backbone)
    assert model.backbone(torch.ones(1, 3, 4, 4)).dtype is torch.float32


@pytest.mark.parametrize('modules', [None, ('backbone', 'neck')])
def test_trains_like_float32(modules):
    torch.manual_seed(0)
    model, reference = Detector(), Detector()
    reference.load_state_dict(model.state_dict())
    low = CPUAmpOptimWrapper(modules, optimizer=SGD(model.parameters(), 0.5))
    full = OptimWrapper(SGD(reference.parameters(), 0.5))
    losses = [(step(model, low), step(reference, full)) for _ in range(10)]
    assert losses[-1][0] < 0.5 * losses[0][0]
    for mine, theirs in losses:
        assert mine == pytest.approx(theirs, rel=0.02)  # bfloat16 keeps 8 bits: 0.4 % per rounding


def test_unknown_modules():
    model = Detector()
    wrapper = CPUAmpOptimWrapper(('encoder',), optimizer=SGD(model.parameters(), 0.1))
    with pytest.raises(InputError, match=r"Detector has none of the modules \('encoder',\)"):
        step(model, wrapper)
