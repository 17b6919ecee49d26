"""Every argument of every public layer: copies of whatever kind carry it."""

import copy
import inspect
import pickle
import warnings

import pytest
import torch
from deployed_checks import assert_same, trained
from random_weights import normal
from torch import nn

from icconv_mm import deploy, layers
from icconv_mm.layers import ICConv2dReLU, PyConv2dReLU
from icconv_mm.layers.settings import settings_of

RUNS, BN = [(4, 1, 1), (4, 2, 1)], dict(type='BN')
X, FINE, COARSE = torch.randn(2, 8, 12, 10), torch.randn(2, 8, 12, 10), torch.randn(2, 8, 6, 5)
INCEPTION = (
    dict(in_channels=8, out_channels=8, pattern=RUNS),
    dict(in_channels=16, out_channels=6, pattern=[(8, 3, 1)], stride=2, groups=2, dilation=(1, 2), bias=True),
    (X,),
)
PYRAMIDAL = (
    dict(in_channels=8, out_channels=[4, 4], kernel_sizes=[3, 5], groups=[1, 4]),
    dict(in_channels=16, out_channels=[8, 4], kernel_sizes=[(1, 3), 7], groups=[2, 2], stride=2, dilation=2, bias=True),
    (X,),
)
NEW = dict(bias=False) if 'bias' in inspect.signature(nn.BatchNorm2d).parameters else {}  # of a newer torch
NORM = (dict(num_features=8), dict(num_features=4, eps=0.1, momentum=0.5, affine=False, **NEW), ([FINE, COARSE],))
DEFORMABLE = (
    dict(in_channels=8, out_channels=6, kernel_size=3),
    dict(in_channels=16, out_channels=4, kernel_size=1, stride=2, padding=1, dilation=2, groups=2, deform_groups=4)
    | dict(bias=True),
    (X,),
)
# layer -> arguments that it needs, another value of each argument, and what it is called with
LAYERS = {
    'DeformConv2d': DEFORMABLE,
    'DropBlock2d': (dict(drop_prob=0.2, block_size=3), dict(drop_prob=0.5, block_size=5), (X,)),
    'GroundingTransformer': (
        dict(channels=8),
        dict(channels=16, inner_channels=8, mixtures=2, similarity='dot', window=3, norm_cfg=BN),
        (FINE, COARSE),
    ),
    'ICConv2d': INCEPTION,
    'ICConv2dReLU': INCEPTION,
    'IntegratedBatchNorm': (NORM[0], NORM[1] | dict(track_running_stats=False), NORM[2]),
    'IntegratedSyncBatchNorm': (NORM[0], NORM[1] | dict(track_running_stats=False), NORM[2]),
    'ModulatedDeformConv2d': (DEFORMABLE[0], DEFORMABLE[1] | dict(bias=False), DEFORMABLE[2]),
    'PConvLayer': (
        dict(in_channels=8, out_channels=6),
        dict(in_channels=16, out_channels=4, deform=True, start_level=0, ibn=True, sync_ibn=True),
        ([FINE, COARSE],),
    ),
    'PyConv2d': PYRAMIDAL,
    'PyConv2dReLU': PYRAMIDAL,
    'RenderingTransformer': (dict(channels=8), dict(channels=16, ratio=4, norm_cfg=BN), (COARSE, FINE)),
    'ScaleEqualizedConv2d': (
        dict(in_channels=8, out_channels=6),
        dict(in_channels=16, out_channels=4, stride=2, padding=0, deform=True),
        (X,),
    ),
    'SelfTransformer': (dict(channels=8), dict(channels=16, mixtures=4, pool_keys=False, norm_cfg=BN), (X,)),
}
# Arguments that have one value (the padding keeps the size, a pattern is of 3x3 kernels), are of parameters or
# processes, or have no effect.
WITHOUT_CHOICE = {'kernel_size', 'padding', 'device', 'dtype', 'process_group', 'im2col_step'}
# what must change with another argument
TOGETHER = {
    ('ICConv2d', 'out_channels'): dict(pattern=[(6, 2, 1)]),
    ('ICConv2d', 'pattern'): {},
    ('GroundingTransformer', 'mixtures'): {},
    ('PConvLayer', 'start_level'): dict(deform=True),
    ('PConvLayer', 'sync_ibn'): dict(ibn=True),
}
CASES = [(name, argument) for name, (_, others, _) in LAYERS.items() for argument in others]


def layer_and_inputs(name: str, argument: str | None = None) -> tuple[nn.Module, tuple]:
    """A layer, with another value of one argument if it is named, and inputs that fit."""
    needed, others, inputs = LAYERS[name]
    settings = dict(needed)
    if argument is not None:
        settings |= TOGETHER.get((name.removesuffix('ReLU'), argument), {}) | {argument: others[argument]}
    torch.manual_seed(0)
    layer = getattr(layers, name)(**settings)
    channels = next(
        settings[key] for key in ('in_channels', 'channels', 'num_features', 'drop_prob') if key in settings
    )
    if name != 'DropBlock2d' and channels != 8:
        inputs = resized(inputs, channels)
    if settings.get('ratio') == 4:
        inputs = (inputs[0][..., :3, :3], inputs[1])
    return normal(layer).requires_grad_(False).eval(), inputs


def resized(inputs, channels):
    if isinstance(inputs, torch.Tensor):
        return torch.cat([inputs, inputs], 1)[:, :channels]
    return type(inputs)(resized(value, channels) for value in inputs)


def of_every_kind(layer: nn.Module) -> list[nn.Module]:
    """Copies of a layer, deployed and not."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # most layers have nothing to fold
        return [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), deploy(layer), deploy(nn.Sequential(layer))[0]]


@pytest.mark.parametrize('name', [name for name in layers.__all__ if isinstance(getattr(layers, name), type)])
def test_every_argument_is_listed(name):
    needed, others, _ = LAYERS[name]
    assert {*inspect.signature(getattr(layers, name)).parameters} - WITHOUT_CHOICE == {
        *needed,
        *others,
    } - WITHOUT_CHOICE


@pytest.mark.parametrize(('name', 'argument'), CASES)
def test_copies_carry_an_argument(name, argument):
    layer, inputs = layer_and_inputs(name, argument)
    assert_differs(layer, layer_and_inputs(name)[0], argument)
    for other in of_every_kind(layer):
        assert_same(layer, other, *inputs)


def assert_differs(layer, usual, argument):
    """Or the test would prove nothing: the argument is kept under its name, or in the parts of the layer."""
    if hasattr(layer, 'settings'):
        assert layer.settings()[argument] != usual.settings()[argument]
    else:
        one, other = (str(getattr(module, argument, module)) for module in (layer, usual))
        assert one != other


CONVOLUTIONS = [case for case in CASES if case[0] in ('ICConv2d', 'PyConv2d')]


@pytest.mark.parametrize(('name', 'argument'), CONVOLUTIONS)
def test_deployed_forms_carry_an_argument(name, argument):
    layer, inputs = layer_and_inputs(name, argument)
    relu = {'ICConv2d': ICConv2dReLU, 'PyConv2d': PyConv2dReLU}[name]
    model = trained(nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.ReLU()))
    deployed = deploy(model)
    assert type(deployed[0]) is relu
    assert_same(model, deployed, *inputs)
    expected, got = settings_of(layer), settings_of(deployed[0])
    assert got == expected | {'bias': True}  # that of the norm
    assert_same(nn.Sequential(layer, nn.ReLU()), relu.of(layer), *inputs)
