"""The pyramid convolution against its equation."""

import pytest
import torch
import torch.nn.functional as F
from random_weights import normal
from torch import nn

from icconv_mm.layers import PConvLayer

ODD = [(7, 10), (4, 5), (2, 3), (1, 2)]


def pyramid(channels=3, sizes=ODD, dtype=torch.float64, batch=2):
    return [torch.randn(batch, channels, *size, dtype=dtype) for size in sizes]


def make(**options):
    return normal(PConvLayer(3, 4, **options).double())


def equation(pconv, levels, deforms):
    """y_l written out with one convolution after the other; ``deforms`` tells by target level."""
    outputs = []
    for level, x in enumerate(levels):
        y = pconv.from_same(x, deforms(level))
        if level:
            y = y + pconv.from_finer(levels[level - 1], deforms(level))
        if level + 1 < len(levels):
            coarser = pconv.from_coarser(levels[level + 1], deforms(level))
            y = y + F.interpolate(coarser, x.shape[-2:], mode='bilinear', align_corners=True)
        outputs.append(y)
    return outputs


@pytest.mark.parametrize('deform', [False, True])
@pytest.mark.parametrize('start_level', [0, 1, 2, 9])
@pytest.mark.parametrize('count', [2, 4])
def test_equation(deform, start_level, count):
    pconv, levels = make(deform=deform, start_level=start_level), pyramid(sizes=ODD[:count])
    want = equation(pconv, levels, lambda target: deform and target >= start_level)
    for got, one in zip(pconv(levels), want, strict=True):
        torch.testing.assert_close(got, one.relu(), rtol=0, atol=1e-12)


def test_one_weight_serves_all_levels():
    assert {key: tuple(value.shape) for key, value in make().state_dict().items()} == {
        f'{conv}.{name}': shape
        for conv in ('from_coarser', 'from_same', 'from_finer')
        for name, shape in (('weight', (4, 3, 3, 3)), ('bias', (4,)))
    }


def test_normalizes_over_all_levels():
    pconv, levels = make(ibn=True), pyramid()
    want = equation(pconv, levels, lambda target: False)
    pixels = torch.cat([x.flatten(2) for x in want], 2)
    norm = nn.BatchNorm2d(4).double()
    norm.load_state_dict(pconv.norm.state_dict())
    parts = norm(pixels[..., None]).relu().split([x[0, 0].numel() for x in want], 2)
    for got, part in zip(pconv(levels), parts, strict=True):
        torch.testing.assert_close(got.flatten(2), part[..., 0], rtol=0, atol=1e-10)


@pytest.mark.parametrize('options', [{}, {'ibn': True}, {'deform': True}], ids=str)
def test_gradcheck(options):
    pconv = PConvLayer(2, 2, **options).double()
    with torch.no_grad():
        for name, parameter in pconv.named_parameters():
            parameter.normal_(std=0.3)
            if name.endswith('conv_offset.weight'):
                parameter.mul_(0.02)
            elif name.endswith('conv_offset.bias'):
                parameter.fill_(0.4)  # between pixels, where sampling is differentiable
            elif name.endswith('bias'):
                parameter.add_(1.0)  # away from ReLU's corner
    levels = [x.requires_grad_() for x in pyramid(2, [(3, 4), (2, 2)])]
    parameters = dict(pconv.named_parameters())

    def run(*inputs):
        values = dict(zip(parameters, inputs[len(levels) :]))
        return tuple(torch.func.functional_call(pconv, values, (list(inputs[: len(levels)]),)))

    assert torch.autograd.gradcheck(run, (*levels, *parameters.values()), fast_mode=True)


def test_autocast_gives_every_level_the_same_dtype():
    pconv = make(deform=True, ibn=True).float()
    with torch.autocast('cpu', torch.bfloat16):
        outputs = pconv(pyramid(dtype=torch.float32))
    assert {x.dtype for x in outputs} == {torch.bfloat16}


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda levels: levels[:1], r'at least 2 levels, got 1'),
        (lambda levels: [*levels[:2], levels[2][:, :2]], r'level 2: expected \[2, 3, H, W\], got \[2, 2, 2, 3\]'),
        (lambda levels: [levels[0], levels[1][:1]], r'level 1: expected \[2, 3, H, W\], got \[1, 3, 4, 5\]'),
        (
            lambda levels: [levels[0], levels[1], levels[1], levels[3]],
            r'levels 1 and 2 disagree: half of 4x5, rounded up, is 2x3, but level 2 is 4x5 '
            r'\(all levels: 7x10, 4x5, 4x5, 1x2\)',
        ),
        (lambda levels: [levels[0], levels[1][..., :4]], r'levels 0 and 1 disagree: .* is 4x5, but level 1 is 4x4'),
    ],
    ids=['one level', 'channels', 'batch', 'order', 'rounded down'],
)
def test_levels_that_are_no_pyramid(change, message):
    with pytest.raises(ValueError, match=message):
        make()(change(pyramid()))
