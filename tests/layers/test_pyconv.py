import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from icconv_mm import deploy
from icconv_mm.layers import PyConv2d, PyConv2dReLU, to_inception
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


def test_keys():
    conv = PyConv2d(8, **LEVELS, bias=True)
    assert list(conv.state_dict()) == [f'pyconv_levels.{i}.{name}' for i in range(3) for name in ('weight', 'bias')]
    assert (conv.in_channels, conv.out_channels) == (8, 16)


def test_levels_that_were_changed_are_called(monkeypatch):
    """A level that a tool has replaced or parametrized computes more than its weight says."""
    x = torch.randn(2, 8, 9, 7)
    conv = PyConv2d(8, **LEVELS)
    monkeypatch.setattr(PyConv2d, 'operator', lambda *_: pytest.fail('the operator was called'))
    to_inception(conv, [[(2, 1, 1), (2, 2, 2)]], filter=r'levels\.0$')
    torch.testing.assert_close(conv(x), by_level(conv, x))
    parametrizations.spectral_norm(conv.pyconv_levels[1])
    torch.testing.assert_close(conv.eval()(x), by_level(conv, x))


def weight_norm(level):
    nn.utils.weight_norm(level)
    level.weight_g.data.mul_(1.5)


def changed(level, **settings):
    for name, value in settings.items():
        setattr(level, name, value)


CHANGES = {
    'hook': lambda level: level.register_forward_hook(lambda module, args, y: y + 1),
    'hook before': lambda level: level.register_forward_pre_hook(lambda module, args: (args[0] * 2,)),
    'pruned': lambda level: prune.l1_unstructured(level, 'weight', 0.5),
    'weight norm': weight_norm,
    'forward': lambda level: setattr(level, 'forward', lambda x, run=level.forward: run(x) * 3),
    'dilation': lambda level: changed(level, dilation=(2, 2), padding=(4, 4)),
    'padding mode': lambda level: changed(level, padding_mode='reflect', _reversed_padding_repeated_twice=[2] * 4),
    'bias': lambda level: setattr(level, 'bias', nn.Parameter(torch.randn(level.out_channels))),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('deployed', [False, True])
@pytest.mark.filterwarnings('ignore')
def test_what_was_done_to_a_level_counts(change, deployed):
    x, conv = torch.randn(2, 8, 9, 7), PyConv2d(8, **LEVELS).requires_grad_(False)
    before = by_level(conv, x)
    CHANGES[change](conv.pyconv_levels[1])
    conv.requires_grad_(False)  # or torch does not copy what weight norm made
    assert conv.pyconv_levels[1].kernel_size == (5, 5)
    expected = by_level(conv, x)
    assert (expected - before).abs().max() > 0.01
    if deployed:
        torch.testing.assert_close(deploy(nn.Sequential(conv, nn.ReLU()))(x), expected.relu())
        torch.testing.assert_close(PyConv2dReLU.of(conv)(x), expected.relu())
    else:
        torch.testing.assert_close(conv(x), expected)
        if change != 'forward':
            torch.testing.assert_close(torch.compile(conv, backend='eager')(x), expected)


def test_gradients_of_a_level_are_heard():
    conv, heard = PyConv2d(8, **LEVELS), []
    conv.pyconv_levels[0].register_full_backward_hook(lambda *_: heard.append(0))
    conv(torch.randn(2, 8, 9, 7)).sum().backward()
    assert heard == [0]


def test_is_one_step_of_a_symbolic_trace():
    conv, x = PyConv2d(8, **LEVELS, bias=True), torch.randn(2, 8, 9, 7)
    traced = torch.fx.symbolic_trace(conv)
    assert [node.target for node in traced.graph.nodes if node.op == 'call_function'] == [torch.cat, pyconv2d]
    for other in (traced, pickle.loads(pickle.dumps(traced))):
        torch.testing.assert_close(other(x), conv(x))
    with torch.no_grad():
        conv.pyconv_levels[0].bias.add_(1)
    torch.testing.assert_close(traced(x), conv(x))  # of parameters, not of what they were


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'groups': [1, 2]}, 'one entry per level, got 3 and 3 and 2'),
        ({'groups': 1}, 'groups must be a list with one entry per level, got 1'),
        ({'kernel_sizes': [3, 4, 7]}, r'level 1: the sides of the kernel must be odd, got \(4, 4\)'),
        ({'groups': [1, 3, 4]}, 'level 1: 3 groups do not divide its 8 input and 4 output channels'),
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


class _Weight(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self):
        return member(self.module, 'weight')
