import logging

import pytest
import torch
from random_weights import normal

from icconv_mm.errors import InputError
from icconv_mm.necks import FPT, UnscathedPyramid
from icconv_mm.registry import MODELS

CHANNELS = [4, 6, 8, 12]
GN = {'type': 'GN', 'num_groups': 4}
SMALL = dict(out_channels=16, norm_cfg=GN, drop_prob=0.0)
SEGMENTATION = dict(in_channels=[8] * 3, strides=[8] * 3, window=3, **SMALL)


def pyramid(size=(25, 19), channels=CHANNELS, batch=2, ratio=2):
    """Maps as strided convolutions make them: every level is half of the one before, rounded up."""
    maps = []
    for level, count in enumerate(channels):
        maps.append(torch.randn(batch, count, *(-(-side // ratio**level) for side in size)))
    return maps


@pytest.mark.parametrize('size', [(32, 32), (25, 19), (33, 8), (1, 1)])
def test_a_pyramid_of_any_size_becomes_one_of_the_same_sizes(size):
    inputs = pyramid(size)
    outputs = FPT(CHANNELS, **SMALL)(inputs)
    assert [tuple(out.shape) for out in outputs] == [(2, 16, *x.shape[2:]) for x in inputs]
    assert all(out.isfinite().all() for out in outputs)


@pytest.mark.parametrize('levels', [1, 2, 5])
@pytest.mark.parametrize('norm_cfg', [GN, {'type': 'BN'}, None], ids=str)
def test_any_number_of_levels_and_any_norm(levels, norm_cfg):
    channels = [4] * levels
    neck = FPT(channels, **{**SMALL, 'norm_cfg': norm_cfg, 'drop_prob': 0.2})
    outputs = neck(pyramid(channels=channels))
    assert len(outputs) == levels
    sum(out.square().mean() for out in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())


def test_every_level_learns_from_every_level():
    neck, inputs = normal(FPT(CHANNELS, **SMALL), 0.2), [x.requires_grad_() for x in pyramid()]
    for out in neck(inputs):
        grads = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True)
        assert all(grad.abs().max() > 0 for grad in grads)


def test_each_interaction_goes_the_way_of_its_name():
    """With grounding alone a level depends on itself and coarser ones, with rendering on itself and finer ones."""
    for name, sees in (('self', int.__eq__), ('grounding', int.__ge__), ('rendering', int.__le__)):
        neck = normal(FPT(CHANNELS, **SMALL, interactions=[name]), 0.2)
        inputs = [x.requires_grad_() for x in pyramid()]
        for level, out in enumerate(neck(inputs)):
            grads = torch.autograd.grad(out.square().sum(), inputs, retain_graph=True, allow_unused=True)
            for other, grad in enumerate(grads):
                assert (grad is not None and bool(grad.any())) == sees(other, level), (name, level, other)


def test_no_interaction_is_a_plain_pyramid():
    neck = FPT(CHANNELS, **SMALL, interactions=())
    inputs = pyramid()
    expected = [neck.outputs[i](neck.laterals[i](x)) for i, x in enumerate(inputs)]
    torch.testing.assert_close(list(neck(inputs)), expected)


def test_the_order_of_the_maps():
    """Itself, its self-transformer, then the other levels from fine to coarse: what the weights of a file mean."""
    neck, inputs = normal(FPT(CHANNELS[:3], **SMALL), 0.2), pyramid(channels=CHANNELS[:3])
    fine, middle, coarse = (conv(x) for conv, x in zip(neck.laterals, inputs))
    maps = [
        middle,
        neck.self_transformers[1](middle),
        neck.renderings['1_0'](middle, fine),
        neck.groundings['1_2'](middle, coarse),
    ]
    torch.testing.assert_close(neck(inputs)[1], neck.outputs[1](torch.cat(maps, 1)))


def test_segmentation_form():
    neck = normal(FPT(**SEGMENTATION), 0.2)
    inputs = pyramid((13, 9), [8] * 3, ratio=1)
    assert [tuple(out.shape) for out in neck(inputs)] == [(2, 16, 13, 9)] * 3
    assert neck.renderings['2_0'].value_convs[0].conv.stride == (1, 1)


def test_drop_block_acts_in_training_only():
    neck, inputs = normal(FPT(CHANNELS, **{**SMALL, 'drop_prob': 0.3}), 0.2), pyramid()
    assert not torch.equal(neck(inputs)[0], neck(inputs)[0])
    neck.eval()
    assert torch.equal(neck(inputs)[0], neck(inputs)[0])


@pytest.mark.parametrize(
    ('settings', 'sizes'),
    [
        (dict(num_outs=5), [(25, 19), (13, 10), (7, 5), (4, 3), (2, 2)]),
        (dict(start_level=1, num_outs=5, add_extra_convs=True), [(13, 10), (7, 5), (4, 3), (2, 2), (1, 1)]),
        (dict(start_level=1, num_outs=5, add_extra_convs='on_output'), [(13, 10), (7, 5), (4, 3), (2, 2), (1, 1)]),
    ],
)
def test_further_levels(settings, sizes):
    neck = FPT(CHANNELS, **SMALL, **settings)
    outputs = neck(pyramid())
    assert [tuple(out.shape[2:]) for out in outputs] == sizes
    if not settings.get('add_extra_convs'):
        assert torch.equal(outputs[-1], outputs[-2][:, :, ::2, ::2])


def test_fewer_levels_are_those_of_the_whole_neck():
    """Nothing is built that no output depends on."""
    whole, inputs = normal(FPT(CHANNELS, **SMALL), 0.2).eval(), pyramid()
    finest = FPT(CHANNELS, **SMALL, num_outs=1).eval()
    finest.load_state_dict({key: whole.state_dict()[key] for key in finest.state_dict()})
    (output,) = finest(inputs)
    torch.testing.assert_close(output, whole(inputs)[0])
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in finest.parameters())


def test_initialization_keeps_the_zero_norms():
    neck = FPT(CHANNELS, **SMALL)
    logging.getLogger('mmengine').setLevel(logging.ERROR)
    neck.init_weights()
    assert not any(module.out_conv.norm.weight.any() for module in neck.groundings.values())
    assert neck.outputs[0].conv.weight.std() > 0 and not neck.outputs[0].conv.bias


def test_a_narrow_neck_of_one_image_trains():
    neck = FPT([32] * 2, out_channels=32, drop_prob=0.2)  # as many groups as channels
    inputs, optimizer, losses = pyramid(channels=[32] * 2, batch=1), torch.optim.SGD(neck.parameters(), 1.0), []
    for _ in range(10):
        optimizer.zero_grad()
        loss = sum((out - 1).square().mean() for out in neck(inputs))
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]
    assert all(module.out_conv.norm.weight.any() for module in neck.groundings.values())  # which start at zero


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (
            dict(out_channels=18, norm_cfg=None, self_mixtures=4),
            'FPT: out_channels and self_mixtures: self-transformer: 18 channels cannot be .* 4 mixtures',
        ),
        (
            dict(grounding_mixtures=3),
            'FPT: out_channels and grounding_mixtures: .* 8 channels cannot be divided into 3 mixtures',
        ),
        (dict(window=4), 'FPT: the side of a window must be odd and positive, got 4'),
        (dict(drop_prob=1.0), 'FPT: drop_prob must be at least 0 and below 1, got 1.0'),
        (dict(strides=[4, 8, 16, 24]), r'1, 2, 4, ... times the one before it, got \[4, 8, 16, 24\]'),
        (dict(start_level=4), 'start_level must be a level, 0 to 3, got 4'),
        (dict(interactions='self'), "FPT: interactions must be a list, of self, grounding, rendering, got 'self'"),
        (dict(interactions=['self', 'cross']), "interactions are self, grounding, rendering, got 'cross'"),
        (dict(norm_cfg=dict(type='GN', num_groups=32)), r'FPT: norm_cfg: num_channels (\(16\) )?must be divisible'),
        (dict(in_channels=32), 'FPT: in_channels must be a list of positive integers, got 32'),
        (dict(out_channels=33, norm_cfg=None), 'FPT: out_channels must be even, as grounding .*, got 33'),
        (dict(similarity='cosine'), "FPT: similarity must be one of euclidean, embedded, dot, got 'cosine'"),
        (dict(add_extra_convs='on_lateral'), "on_output', got 'on_lateral'"),
    ],
)
def test_bad_arguments(settings, message):
    with pytest.raises(InputError, match=message):
        FPT(**{'in_channels': CHANNELS, **SMALL, **settings})


def test_channels_without_grounding_may_be_odd():
    assert FPT(CHANNELS, 9, norm_cfg=None, interactions=['rendering'])(pyramid())[0].shape[1] == 9


def test_inputs_that_are_no_pyramid():
    neck, inputs = FPT(CHANNELS, **SMALL), pyramid()
    with pytest.raises(InputError, match='expected 4 levels, got 3'):
        neck(inputs[:3])
    with pytest.raises(InputError, match=r'level 2 must have the shape \[2, 8, 7, 5\], got \[2, 8, 6, 5\]'):
        neck([*inputs[:2], inputs[2][:, :, :6], inputs[3]])
    with pytest.raises(InputError, match=r'level 1 must have the shape \[2, 6, 13, 10\], got \[2, 5, 13, 10\]'):
        neck([inputs[0], inputs[1][:, :5], *inputs[2:]])
    with pytest.raises(InputError, match=r'level 3 must have the shape \[2, 12, 4, 3\], got \[1, 12, 4, 3\]'):
        neck([*inputs[:3], inputs[3][:1]])
    with pytest.raises(InputError, match=r'strides \[8, 8, 8\]: level 1 must'):
        FPT(**SEGMENTATION)(pyramid((13, 9), [8] * 3))
    with pytest.raises(InputError, match='FPT: level 1 is 2 x 9, smaller than the window of 3 of the grounding tr'):
        FPT(**SEGMENTATION)(pyramid((2, 9), [8] * 3, ratio=1))


def test_half_precision_with_large_values_is_finite():
    neck = FPT(CHANNELS, **SMALL).eval()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        outputs = neck([1e3 * x for x in pyramid()])
    assert all(out.isfinite().all() for out in outputs)


def test_unscathed_pyramid():
    neck = MODELS.build(dict(type='icconv_mm.UnscathedPyramid', in_channels=12, out_channels=8, norm_cfg=GN))
    outputs = neck(pyramid((9, 7)))
    assert [tuple(out.shape) for out in outputs] == [(2, 8, 2, 1)] * 4
    sum(out.sum() for out in outputs).backward()
    x = torch.zeros(1, 8, 33, 33)
    x[..., 16, 16] = 1
    spans = []
    for level in neck.eval().levels:
        differs = (level.branches[0](x) - level.branches[0](torch.zeros_like(x))).abs().sum((0, 1)) > 0
        spans.append(int(differs.any(0).sum()))
    assert spans == [1, 7, 15, 31]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(kernel_sizes=(1, 2)), 'UnscathedPyramid: kernel_sizes: .* odd and positive, got 2'),
        (dict(kernel_sizes=()), r'UnscathedPyramid: kernel_sizes must be a list of positive integers, got \(\)'),
        (dict(out_channels=8), r'UnscathedPyramid: norm_cfg: num_channels (\(8\) )?must be divisible'),
    ],
)
def test_bad_arguments_of_the_unscathed_pyramid(settings, message):
    with pytest.raises(InputError, match=message):
        UnscathedPyramid(**{'in_channels': 8, **settings})


def test_bad_levels_of_the_unscathed_pyramid():
    with pytest.raises(InputError, match='UnscathedPyramid: in_index=4, but there are 4 levels'):
        UnscathedPyramid(8, 8, in_index=4, norm_cfg=GN)(pyramid())
    with pytest.raises(InputError, match=r'level -1 must be \[B, 8, H, W\] \(in_channels\), got \[2, 12, 4, 3\]'):
        UnscathedPyramid(8, 8, norm_cfg=GN)(pyramid())
