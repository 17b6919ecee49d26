"""Evaluated networks that somebody changes: they compute with what their modules are now, plain and deployed."""

import copy

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.parametrizations import weight_norm

from icconv_mm.backbones import ICResNet
from icconv_mm.layers import ICConv2d, PyConv2d
from icconv_mm.ops import use_backend

CONVS = (nn.Conv2d, ICConv2d)


class Pyramids(nn.Module):
    """Pyramidal convolutions with norms, one after the other."""

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(
            *(
                part
                for channels in (3, 16, 16)
                for part in (self.pyramid(channels), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
            )
        )

    @staticmethod
    def pyramid(channels: int) -> nn.Module:
        return nn.Conv2d(3, 16, 3, padding=1) if channels == 3 else PyConv2d(16, [8, 4, 4], [3, 5, 7], [1, 2, 4])

    def forward(self, x):
        return (self.stages(x),)


def network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    net = Pyramids() if kind == 'pyramids' else ICResNet(18, pattern='geometric_d4', base_channels=16)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    return net.eval()


def expected(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """In double precision by plain torch, of a copy that has kept nothing."""
    exact = copy.deepcopy(net).double()
    with torch.no_grad(), use_backend('reference'):
        return list(exact(x.double()))


def same(got, wanted) -> None:
    """Equal where it is finite, and finite in the same places."""
    for one, other in zip(got, wanted, strict=True):
        finite = other.isfinite()
        assert torch.equal(one.isfinite(), finite)
        scale = other[finite].abs().max().clamp(min=1) if finite.any() else 1
        assert ((one.double() - other)[finite].abs() <= 1e-4 * scale).all()


def double(module, args, output):
    return 2 * output


def shift(module, args):
    return (args[0] + 0.25,)


def replaced(data, net: nn.Module) -> None:
    """A module gives way to another of the same shape, or to none."""
    names = {name: m for name, m in net.named_modules() if isinstance(m, (nn.BatchNorm2d, nn.ReLU)) and name}
    names |= {name: m for name, m in net.named_modules() if isinstance(m, CONVS) and _keeps_shape(m) and name}
    name = data.draw(st.sampled_from(sorted(names)))
    new = st.sampled_from([nn.Identity(), nn.Tanh(), nn.AvgPool2d(3, 1, 1)])
    net.get_submodule(name.rpartition('.')[0]).__setattr__(name.rpartition('.')[2], data.draw(new))


def _keeps_shape(conv: nn.Module) -> bool:
    return conv.in_channels == conv.out_channels and conv.stride in ((1, 1), 1)


def hooked(data, net: nn.Module) -> None:
    layers = (*CONVS, PyConv2d, nn.BatchNorm2d, nn.ReLU)  # also those of which a pyramidal convolution consists
    module = data.draw(st.sampled_from([m for m in net.modules() if isinstance(m, layers)]))
    if data.draw(st.booleans()):
        module.register_forward_hook(double)
    else:
        module.register_forward_pre_hook(shift)


def pruned(data, net: nn.Module) -> None:
    conv = data.draw(st.sampled_from(convs(net)))
    if not hasattr(conv, 'parametrizations') and not prune.is_pruned(conv):
        prune.random_unstructured(conv, 'weight', 0.5)


def parametrised(data, net: nn.Module) -> None:
    conv = data.draw(st.sampled_from(convs(net)))
    if not hasattr(conv, 'parametrizations') and not prune.is_pruned(conv):
        weight_norm(conv)
        with torch.no_grad():
            conv.parametrizations.weight.original0.mul_(1.5)


def shared(data, net: nn.Module) -> None:
    """Two places of one shape get one module."""
    named = {name: m for name, m in net.named_modules() if isinstance(m, (*CONVS, nn.BatchNorm2d)) and name}
    first = data.draw(st.sampled_from(sorted(named)))
    alike = [name for name, m in named.items() if repr(m) == repr(named[first])]
    other = data.draw(st.sampled_from(alike))
    net.get_submodule(other.rpartition('.')[0]).__setattr__(other.rpartition('.')[2], named[first])


def written(data, net: nn.Module) -> None:
    """Values change behind the back of autograd's counters."""
    tensors = [t for t in (*net.parameters(), *net.buffers()) if t.is_floating_point() and t.ndim]
    weights = [t for t in tensors if t.ndim == 4] or tensors
    tensor = data.draw(st.sampled_from(weights if data.draw(st.booleans()) else tensors))
    way = data.draw(st.sampled_from(['data', 'numpy', 'storage', 'single']))
    before = tensor._version
    if way == 'data':
        tensor.data[::2].mul_(1.25)
    elif way == 'numpy':
        tensor.detach().numpy()[...] *= 0.75
    elif way == 'single':  # two signs, which cancel in a sum of bits; of weights alone: a variance stays positive
        flat = data.draw(st.sampled_from(weights)).detach().numpy().reshape(-1)
        at = data.draw(st.integers(0, flat.size - 1))
        flat[[at, (at + 32) % flat.size]] *= -1
    else:
        alias = torch.empty(0).set_(tensor.untyped_storage(), 0, (tensor.numel(),))
        alias[:1] *= 1.5
    assert way == 'storage' or tensor._version == before


def convs(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, CONVS)]


SURGERY = [replaced, hooked, pruned, parametrised, shared, written]


@given(data=st.data(), kind=st.sampled_from(['resnet', 'pyramids']))
def test_surgery(case, data, kind):
    net, x = network(kind), torch.randn(1, 3, 32, 32)
    steps = []
    with torch.no_grad():
        net(x)  # packed and kept
        for _ in range(data.draw(st.integers(1, 4))):
            change = data.draw(st.sampled_from(SURGERY))
            change(data, net)
            steps.append(change.__name__)
            case.holds(repr((kind, steps)).encode())
            given = x.clone()
            for _ in range(2):
                same(net(x), expected(net, x))
            assert torch.equal(x, given)
