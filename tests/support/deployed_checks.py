"""What every test of deployed networks needs: networks whose norms do something, and the comparison."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from icconv_mm import deploy

TOLERANCE = 1e-4  # of the maximum, in float32


def trained(model: nn.Module) -> nn.Module:
    """In evaluation mode, with norms as after training: statistics and parameters differ, some slopes are negative."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                if module.running_mean is not None:
                    module.running_mean.uniform_(-0.5, 0.5)
                    module.running_var.uniform_(0.5, 2)
                if module.weight is not None:
                    module.weight.uniform_(0.3, 1.3).mul_(torch.rand_like(module.weight).gt(0.2).mul(2).sub(1))
                    module.bias.uniform_(-0.5, 0.5)
    model.eval()
    return model


def flat(output) -> list[Tensor]:
    """The tensors of nested tuples, lists and dictionaries."""
    if isinstance(output, Tensor):
        return [output]
    items = output.values() if isinstance(output, dict) else output
    return [tensor for item in items for tensor in flat(item)]


@torch.no_grad()
def assert_same(model: nn.Module, deployed: nn.Module, *inputs: object, call: Callable | None = None) -> None:
    """Both compute the same, to 1e-4 of the maximum of each output."""
    call = call or (lambda module: module(*inputs))
    expected, got = flat(call(model)), flat(call(deployed))
    assert len(got) == len(expected) > 0
    for one, other in zip(got, expected):
        assert one.shape == other.shape and torch.isfinite(other).all()
        assert ((one - other).abs().max() / other.abs().max()).item() <= TOLERANCE


def checked(model: nn.Module, *inputs: object) -> nn.Module:
    """A model made ``trained``, deployed and compared with itself."""
    model = trained(model)
    deployed = deploy(model)
    assert_same(model, deployed, *inputs)
    return deployed


def norms(model: nn.Module) -> list[str]:
    """The batch norms that are left."""
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def count(model: nn.Module, kind: type) -> int:
    return sum(type(module) is kind for module in model.modules())
