import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from icconv_mm.layers import PyConv2d, to_inception
from icconv_mm.layers.pyconv import member
from icconv_mm.ops import pyconv2d

LEVELS = {'out_channels': [4, 4, 8], 'kernel_sizes': [3, 5, (7, 3)], 'groups': [1, 2, 4]}


def by_level(conv: PyConv2d, x):
    return torch.cat([level(x) for level in conv.pyconv_levels], 1)


@pytest.mark.parametrize('settings', [{}, {'stride': 2}, {'dilation': 3}, {'bias': True}], ids=str)
def test_concatenates_its_levels(settings):
    conv = PyConv2d(8, **LEVELS, **settings)
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(conv(x), by_level(conv, x))
    assert conv(x).shape == (2, 16, *((5, 4) if 'stride' in settings else (9, 7)))


def test_is_the_operator(monkeypatch):
    conv = PyConv2d(8, **LEVELS, stride=2, bias=True)
    calls = []
    monkeypatch.setattr(PyConv2d, 'operator', lambda _, *args: calls.append(args) or pyconv2d(*args))
    x = torch.randn(2, 8, 9, 7)
    got = conv(x)
    ((_, weights, bias, groups, stride, dilation),) = calls
    assert [list(w.shape) for w in weights] == [[4, 8, 3, 3], [4, 4, 5, 5], [8, 2, 7, 3]]
    assert (bias.shape, groups, stride, dilation) == ((16,), (1, 2, 4), 2, 1)
    torch.testing.assert_close(got, by_level(conv, x))


def test_keys():
    conv = PyConv2d(8, **LEVELS, bias=True)
    assert list(conv.state_dict()) == [f'pyconv_levels.{i}.{name}' for i in range(3) for name in ('weight', 'bias')]
    assert (conv.in_channels, conv.out_channels) == (8, 16)


def test_is_built_from_a_config():
    pytest.importorskip('mmengine')
    from icconv_mm.registry import MODELS

    conv = MODELS.build({'type': 'icconv_mm.PyConv2d', 'in_channels': 8, **LEVELS})
    assert len(conv.pyconv_levels) == 3 and conv.pyconv_levels[0].bias is None


def test_copies():
    conv = PyConv2d(8, **LEVELS, stride=2, dilation=2)
    x = torch.randn(2, 8, 9, 7)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(x), conv(x))


def test_levels_that_were_changed_are_called(monkeypatch):
    """A level that a tool has replaced or parametrized computes more than its weight says."""
    x = torch.randn(2, 8, 9, 7)
    conv = PyConv2d(8, **LEVELS)
    monkeypatch.setattr(PyConv2d, 'operator', lambda *_: pytest.fail('the operator was called'))
    to_inception(conv, [[(2, 1, 1), (2, 2, 2)]], filter=r'levels\.0$')
    torch.testing.assert_close(conv(x), by_level(conv, x))
    parametrizations.spectral_norm(conv.pyconv_levels[1])
    torch.testing.assert_close(conv.eval()(x), by_level(conv, x))


def test_initialization_treats_the_levels_as_convolutions():
    conv = PyConv2d(64, [64, 64], [3, 9], [1, 16])
    for module in conv.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    assert conv.pyconv_levels[1].weight.std().item() == pytest.approx((2 / (4 * 81)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'groups': [1, 2]}, 'one entry per level, got 3 and 3 and 2'),
        ({'out_channels': [8]}, 'one entry per level, got 1 and 3 and 3'),
        ({'out_channels': 16}, 'out_channels must be a list with one entry per level, got 16'),
        ({'kernel_sizes': 3}, 'kernel_sizes must be a list with one entry per level, got 3'),
        ({'groups': 1}, 'groups must be a list with one entry per level, got 1'),
        ({'out_channels': [], 'kernel_sizes': [], 'groups': []}, 'one entry per level, got 0 and 0 and 0'),
        ({'kernel_sizes': [3, 4, 7]}, r'level 1: the sides of the kernel must be odd, got \(4, 4\)'),
        ({'kernel_sizes': [3, 5, (7, 2)]}, r'level 2: .* must be odd, got \(7, 2\)'),
        ({'groups': [1, 3, 4]}, 'level 1: 3 groups do not divide its 8 input and 4 output channels'),
        ({'groups': [1, 2, 16]}, 'level 2: 16 groups do not divide its 8 input and 8 output channels'),
        ({'out_channels': [4, 5, 8]}, 'level 1: 2 groups do not divide its 8 input and 5 output channels'),
        ({'stride': (1, 2)}, r'stride and dilation must be integers of at least 1, got \(1, 2\) and 1'),
        ({'dilation': 0}, 'must be integers of at least 1, got 1 and 0'),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        PyConv2d(8, **(LEVELS | arguments))


def test_member():
    conv = nn.Conv2d(2, 3, 1, bias=False)
    assert member(conv, 'weight') is conv.weight and member(conv, 'bias') is None
    assert member(nn.ModuleDict({'conv': conv}), 'conv') is conv
    given = torch.randn(3, 2, 1, 1)
    taken = torch.func.functional_call(_Weight(conv), {'module.weight': given}, ())
    assert taken is given
    del conv.weight
    conv.weight = given  # as pruning and wrappers that split parameters do
    assert member(conv, 'weight') is given
    with pytest.raises(AttributeError, match='scale'):
        member(conv, 'scale')


def test_member_is_compiled():
    conv = nn.Conv2d(2, 3, 1)
    compiled = torch.compile(lambda: member(conv, 'weight') * 2, backend='eager', fullgraph=True)
    assert torch.equal(compiled(), conv.weight * 2)


class _Weight(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self):
        return member(self.module, 'weight')
