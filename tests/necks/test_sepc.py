"""The necks PConv and SEPC: shapes, options, other necks before them, other tasks behind them, bad input."""

import sys
from functools import partial

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from icconv_mm.errors import InputError
from icconv_mm.layers import IntegratedSyncBatchNorm
from icconv_mm.necks import SEPC, PConv

SIZES = [(17, 20), (9, 10), (5, 5), (3, 3)]
FULL = {'pconv_deform': True, 'lcconv_deform': True, 'ibn': True}


def pyramid(channels=4, sizes=SIZES, batch=2):
    return [torch.randn(batch, channels, *size) for size in sizes]


def shapes(levels):
    return [tuple(x.shape) for x in levels]


@pytest.mark.parametrize(
    'count, options',
    [
        (2, {}),
        (2, {'pconv_num': 1, 'ibn': True}),
        (3, {'pconv_deform': True}),
        (4, {'pconv_deform': True, 'ibn': True}),
    ],
    ids=str,
)
def test_pconv_keeps_sizes_and_gives_the_asked_channels(count, options):
    neck = PConv([4] * count, 6, count, **options)
    levels = pyramid()[:count]
    assert shapes(neck(levels)) == [(2, 6, *size) for size in SIZES[:count]]
    assert len(neck.pconvs) == options.get('pconv_num', 4)
    sum(x.sum() for x in neck(levels)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())


@pytest.mark.parametrize('padding', [0, 1])
@pytest.mark.parametrize('options', [{}, {'ibn': True}, {'ibn': True, 'lcconv_deform': True}, FULL], ids=str)
def test_sepc_gives_a_pair_of_maps_per_level(padding, options):
    neck = SEPC(4, 6, 4, lcconv_padding=padding, **options)
    outputs = neck(pyramid())
    crop = 2 - 2 * padding
    for cls, reg in outputs:
        assert not torch.equal(cls, reg)
    for branch in zip(*outputs):
        assert shapes(branch) == [(2, 6, h - crop, w - crop) for h, w in SIZES]
    sum(x.square().sum() for pair in outputs for x in pair).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())


def test_padding_0_is_padding_1_without_its_border():
    """Which is why cell (0, 0) of a shrunken map looks at cell (1, 1)."""
    cropped, padded = SEPC(4, 6, 4, **FULL), SEPC(4, 6, 4, lcconv_padding=1, **FULL)
    nn.init.normal_(cropped.cls_conv.conv_offset.weight, std=0.1)
    padded.load_state_dict(cropped.state_dict())
    levels = pyramid()
    for small, large in zip(cropped.eval()(levels), padded.eval()(levels)):
        for one, other in zip(small, large):
            torch.testing.assert_close(one, other[..., 1:-1, 1:-1])


def test_start_level_is_the_finest_that_deforms():
    levels = pyramid()
    plain, deforming = SEPC(4, 6, 4), SEPC(4, 6, 4, pconv_deform=True, lcconv_deform=True, start_level=2)
    missing, unexpected = deforming.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected and all('conv_offset' in key for key in missing)
    for name, parameter in deforming.named_parameters():
        if 'conv_offset' in name:
            nn.init.normal_(parameter, std=0.5)
    deforming.pconvs, plain.pconvs = deforming.pconvs[:1], plain.pconvs[:1]  # one layer reaches one level further
    changed = [not torch.allclose(one[0], other[0]) for one, other in zip(plain(levels), deforming(levels))]
    assert changed == [False, False, True, True]
    never = SEPC(4, 6, 4, pconv_deform=True, lcconv_deform=True, start_level=4)
    never.load_state_dict(SEPC(4, 6, 4, pconv_deform=True, lcconv_deform=True).state_dict())


@pytest.mark.parametrize('branch', ['cls', 'reg'])
def test_one_branch_gives_tensors_and_has_no_other_parameters(branch):
    both, one = SEPC(4, 6, 4, **FULL).eval(), SEPC(4, 6, 4, branches=branch, **FULL).eval()
    state = {key: value for key, value in both.state_dict().items() if key in one.state_dict()}
    one.load_state_dict(state)
    other = 'reg' if branch == 'cls' else 'cls'
    assert not any(key.startswith(other) for key in one.state_dict())
    levels = pyramid()
    for got, pair in zip(one(levels), both(levels)):
        torch.testing.assert_close(got, pair[branch == 'reg'])


def test_norm_eval_and_synchronized_norms():
    neck = SEPC(4, 6, 4, ibn=True, norm_eval=True).train()
    before = neck.cls_norm.running_mean.clone()
    neck(pyramid())
    assert torch.equal(neck.cls_norm.running_mean, before) and neck.training
    neck = SEPC(4, 6, 4, ibn=True, sync_ibn=True)
    assert sum(isinstance(module, IntegratedSyncBatchNorm) for module in neck.modules()) == 6


def test_norms_converted_by_a_library_stay_integrated():
    """As with ``sync_bn='torch'`` in a config, and back."""
    from mmengine.model import revert_sync_batchnorm

    neck, levels = SEPC(4, 6, 4, ibn=True), pyramid()
    want = neck(levels)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(neck)
    for model in (converted, revert_sync_batchnorm(converted)):
        for got, pair in zip(model(levels), want):
            torch.testing.assert_close(got, pair)


def test_initialization():
    neck = SEPC(64, 64, 4, **FULL)
    neck.init_weights()
    weights = [p for name, p in neck.named_parameters() if name.endswith('.weight') and p.ndim == 4]
    offsets = [p for name, p in neck.named_parameters() if 'conv_offset' in name]
    assert len(weights) == 28 and len(offsets) == 28
    assert all(0.0095 < w.std() < 0.0105 for w in weights if w.shape[0] == 64)
    assert not any(p.any() for p in offsets)


def test_sequence_neck_needs_necks():
    with pytest.raises(InputError, match='necks is empty'):
        MODELS.build({'type': 'icconv_mm.SequenceNeck', 'necks': []})


@pytest.mark.parametrize(
    'options, message',
    [
        ({'num_outs': 1}, r'SEPC: num_outs: a pyramid has 2 levels or more, got 1'),
        ({'num_outs': '4'}, "SEPC: num_outs must be a positive integer, got '4'"),
        ({'start_level': '1'}, "SEPC: start_level must be 0 or more, got '1'"),
        ({'lcconv_padding': '1'}, "SEPC: lcconv_padding must be 0 or more, got '1'"),
        ({'pconv_num': 0}, 'SEPC: pconv_num must be a positive integer, got 0'),
        ({'in_channels': [4, 4, 8, 4]}, r'expected one number or 4 \(num_outs\) equal ones, got \[4, 4, 8, 4\]'),
        ({'in_channels': [4, 4]}, r'expected one number or 4 \(num_outs\) equal ones, got \[4, 4\]'),
        ({'in_channels': 0}, 'SEPC: in_channels must be a positive integer, got 0'),
        ({'in_channels': None}, 'SEPC: in_channels must be a positive integer, got None'),
        ({'out_channels': 0}, 'SEPC: out_channels must be a positive integer, got 0'),
        ({'branches': 'loc'}, r"branches must be 'both', 'cls' or 'reg', got 'loc'"),
        ({'start_level': -3}, r'SEPC: start_level must be 0 or more, got -3'),
        ({'lcconv_padding': -1}, r'lcconv_padding must be 0 or more, got -1'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        SEPC(**{'in_channels': 4, 'out_channels': 6, 'num_outs': 4, **options})


def test_deformation_without_the_operators_of_mmcv(monkeypatch):
    neck, levels = SEPC(4, 6, 4, **FULL).eval(), pyramid()
    expected = neck(levels)
    monkeypatch.setitem(sys.modules, 'mmcv.ops.deform_conv', None)  # as of mmcv-lite: importing it fails
    for one, other in zip(neck(levels), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_wrong_number_of_levels():
    message = r'SEPC: expected 4 levels \(num_outs\), got 3: \[2, 4, 17, 20\], \[2, 4, 9, 10\], \[2, 4, 5, 5\]'
    with pytest.raises(InputError, match=message):
        SEPC(4, 6, 4)(pyramid()[:3])
    with pytest.raises(InputError, match=r'PConv: expected 3 levels \(num_outs\), got 4'):
        PConv(4, 6, 3)(pyramid())


def test_levels_that_would_vanish():
    levels = pyramid(sizes=[*SIZES[:3], (3, 3), (2, 2)])
    with pytest.raises(InputError, match=r'level 4 is 2x2, but lcconv_padding=0 needs 3x3: .*'):
        SEPC(4, 6, 5)(levels)
    assert SEPC(4, 6, 5, lcconv_padding=1)(levels)[4][0].shape == (2, 6, 2, 2)
    levels.append(torch.randn(2, 4, 1, 1))
    assert SEPC(4, 6, 6, lcconv_padding=1, **FULL)(levels)[5][0].shape == (2, 6, 1, 1)


@pytest.mark.parametrize('kind', [PConv, SEPC])
def test_levels_that_are_no_pyramid(kind):
    """As errors that the tools print as a message."""
    neck, name = kind(4, 6, 4), kind.__name__
    message = rf'^{name}: levels 2 and 3 disagree: half of 5x5, rounded up, is 3x3, .* is 4x3'
    with pytest.raises(InputError, match=message):
        neck([*pyramid()[:3], torch.randn(2, 4, 4, 3)])
    with pytest.raises(InputError, match=rf'^{name}: level 0: expected \[2, 4, H, W\], got \[2, 5, 17, 20\]'):
        neck(pyramid(channels=5))


@pytest.mark.parametrize('sync', [False, True])
@pytest.mark.parametrize(
    'kind', [PConv, partial(SEPC, lcconv_padding=1), partial(SEPC, lcconv_padding=1, branches='cls')]
)
def test_norms_of_several_convolutions_are_not_folded_into_one(kind, sync):
    """``--fuse-conv-bn`` of mmdet's and mmpose's tools."""
    fuse_conv_bn = pytest.importorskip('mmcv.cnn.utils.fuse_conv_bn').fuse_conv_bn
    torch.manual_seed(0)
    maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 8, 8, 8)]
    neck = kind(8, 8, 2, ibn=True, sync_ibn=sync)
    names = [name for name, _ in neck.named_parameters()]
    neck(maps)
    neck.eval()
    expected = neck(maps)
    torch.testing.assert_close(fuse_conv_bn(neck)(maps), expected)
    assert [name for name, _ in neck.named_parameters()] == names
