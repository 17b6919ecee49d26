"""Deformable convolution: the reference equals torchvision's and mmcv's, the compiled kernel the reference."""

import random

import pytest
import torch

from icconv_mm.ops import dispatch
from icconv_mm.ops.deform_conv import deform_conv2d, gradients, reference

needs_kernel = pytest.mark.skipif(
    dispatch.missing_kernel('deform_conv2d_compiled', 'cpu') is not None, reason='the library is without it'
)
# in, out, height, width, kernel, stride, padding, dilation, groups, deform groups, with a mask, with a bias
CASES = [
    (8, 6, 9, 11, (3, 3), 1, 1, 1, 1, 1, False, False),
    (12, 8, 10, 7, (3, 3), 2, 1, 1, 2, 3, True, True),
    (6, 4, 8, 8, (1, 5), (1, 2), (0, 2), (3, 1), 2, 2, False, True),
    (40, 70, 13, 17, (3, 3), 1, 2, 2, 1, 2, True, False),
    (66, 33, 6, 30, (3, 3), 1, 1, 1, 3, 1, True, True),
    (5, 3, 2, 2, (3, 3), 1, 1, 1, 1, 5, False, False),
    (8, 8, 5, 6, (3, 3), 1, 1, 1, 8, 4, True, False),
    (130, 20, 12, 9, (3, 3), 1, 1, 1, 1, 1, False, True),
]


def make(case, dtype=torch.float32, images=2, scale=2.0, seed=0):
    torch.manual_seed(seed)
    inside, outside, height, width, kernel, stride, padding, dilation, groups, parts, masked, biased = case
    pair = [(value, value) if isinstance(value, int) else value for value in (stride, padding, dilation)]
    size = [
        (side + 2 * pad - step * (taps - 1) - 1) // by + 1
        for side, taps, by, pad, step in zip((height, width), kernel, *pair)
    ]
    taps = kernel[0] * kernel[1]
    x = torch.randn(images, inside, height, width, dtype=dtype)
    offset = scale * torch.randn(images, 2 * parts * taps, *size, dtype=dtype)
    weight = torch.randn(outside, inside // groups, *kernel, dtype=dtype)
    mask = torch.rand(images, parts * taps, *size, dtype=dtype) if masked else None
    bias = torch.randn(outside, dtype=dtype) if biased else None
    return [x, offset, mask, weight, bias], [list(values) for values in pair] + [groups, parts]


def call(tensors, settings):
    x, offset, mask, weight, bias = tensors
    return deform_conv2d(x, weight, offset, mask, *settings, bias=bias)


def with_gradients(function, tensors):
    tensors = [None if tensor is None else tensor.detach().clone().requires_grad_() for tensor in tensors]
    y = function(tensors)
    torch.manual_seed(1)
    y.backward(torch.randn(y.shape, dtype=y.dtype).to(y))
    return [y.detach(), *(None if tensor is None else tensor.grad for tensor in tensors)]


def assert_all_close(results, expected, **tolerances):
    for result, other in zip(results, expected, strict=True):
        assert (result is None) == (other is None)
        if result is not None:
            torch.testing.assert_close(result, other, **tolerances)


@pytest.mark.parametrize('case', CASES)
def test_the_reference_equals_torchvision(case):
    theirs = pytest.importorskip('torchvision').ops.deform_conv2d
    tensors, settings = make(case, torch.float64)
    pairs = settings[:3]

    def torchvisions(tensors):
        x, offset, mask, weight, bias = tensors
        return theirs(x, offset, weight, bias, *pairs, mask)

    assert_all_close(
        with_gradients(lambda inputs: call(inputs, settings), tensors), with_gradients(torchvisions, tensors)
    )


@pytest.mark.parametrize('case', [case for case in CASES if min(case[2:4]) >= max(case[4])])  # mmcv refuses others
def test_the_reference_equals_mmcv(case):
    pytest.importorskip('mmcv._ext')
    from mmcv.ops import deform_conv2d as plain
    from mmcv.ops import modulated_deform_conv2d as modulated

    tensors, settings = make(case)
    *pairs, groups, parts = settings

    def mmcvs(tensors):
        x, offset, mask, weight, bias = tensors
        if mask is not None:
            return modulated(x, offset, mask, weight, bias, *pairs, groups, parts)
        y = plain(x, offset, weight, *pairs, groups, parts)
        return y if bias is None else y + bias[:, None, None]

    results = with_gradients(lambda inputs: call(inputs, settings), tensors)
    assert_all_close(results, with_gradients(mmcvs, tensors), rtol=1e-4, atol=1e-4)


@needs_kernel
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_the_kernel_equals_the_reference(case, channels_last):
    tensors, settings = make(case, images=3)
    if channels_last:
        tensors[0] = tensors[0].contiguous(memory_format=torch.channels_last)
    with dispatch.use_backend('cpu'):
        results = with_gradients(lambda inputs: call(inputs, settings), tensors)
    with dispatch.use_backend('reference'):
        expected = with_gradients(lambda inputs: call(inputs, settings), tensors)
    assert results[0].is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert_all_close(results, expected, rtol=1e-4, atol=1e-4)


def random_case(seed):
    rng = random.Random(seed)
    groups, kernel = rng.randint(1, 3), (rng.randint(1, 4), rng.randint(1, 4))
    inside, outside = groups * rng.randint(1, 70), groups * rng.randint(1, 40)
    parts = rng.choice([number for number in range(1, 7) if inside % number == 0])
    stride, padding, dilation = ((rng.randint(low, 3), rng.randint(low, 3)) for low in (1, 0, 1))
    least = [step * (taps - 1) + 1 for taps, step in zip(kernel, dilation)]
    height, width = (rng.randint(side, side + 16) for side in least)
    return inside, outside, height, width, kernel, stride, padding, dilation, groups, parts, seed % 2 > 0, seed % 3 > 0


@needs_kernel
@pytest.mark.parametrize('instructions', ['avx512', 'avx2', 'portable'])
@pytest.mark.parametrize('seed', range(8))
def test_random_calls(seed, instructions, monkeypatch):
    monkeypatch.setenv('ICCONV_MM_CPU', instructions)
    tensors, settings = make(random_case(seed), scale=3.0, seed=seed)
    # of any strides
    tensors = [
        None if tensor is None else tensor.movedim(1, -1).contiguous().movedim(-1, 1) for tensor in tensors[:4]
    ] + [tensors[4]]
    try:
        with dispatch.use_backend('cpu'):
            results = with_gradients(lambda inputs: call(inputs, settings), tensors)
    except RuntimeError as error:
        if 'one that this processor has' in str(error):
            pytest.skip(f'this processor has no {instructions}')
        raise
    with dispatch.use_backend('reference'):
        expected = with_gradients(lambda inputs: call(inputs, settings), tensors)
    assert_all_close(results, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('backend', ['reference', pytest.param('cpu', marks=needs_kernel)])
@pytest.mark.parametrize('size', [(0, 6, 6), (2, 2, 2)], ids=['no image', 'no pixel'])
def test_empty(size, backend):
    images, height, width = size
    tensors, settings = make((4, 3, height, width, (3, 3), 1, 0, 1, 1, 1, True, True), images=images)
    with dispatch.use_backend(backend):
        y, *grads = with_gradients(lambda inputs: call(inputs, settings), tensors)
    assert y.shape == (images, 3, height - 2, width - 2)
    assert not any(grad.any() for grad in grads)


@needs_kernel
def test_more_pixels_than_a_wave():
    case = (64, 16, 40, 61, (3, 3), 1, 1, 1, 1, 1, False, False)
    tensors, settings = make(case, images=5)
    with dispatch.use_backend('cpu'):
        results = with_gradients(lambda inputs: call(inputs, settings), tensors)
    with dispatch.use_backend('reference'):
        expected = with_gradients(lambda inputs: call(inputs, settings), tensors)
    assert_all_close(results, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize('backend', ['reference', pytest.param('cpu', marks=needs_kernel)])
def test_places_without_a_number_are_outside(backend):
    tensors, settings = make(CASES[0])
    tensors[1][0, :4] = torch.tensor([float('nan'), float('inf'), -float('inf'), 1e30])[:, None, None]
    tensors[0][:, :, 0, 0] = float('inf')
    far, _ = make(CASES[0])
    far[1][0, :4], far[0] = -100, tensors[0]
    with dispatch.use_backend(backend):
        assert_all_close([call(tensors, settings)], [call(far, settings)], equal_nan=True)


@pytest.mark.parametrize('case', CASES[1:3])
def test_gradcheck(case):
    tensors, settings = make(case, torch.float64, images=1, scale=0.7)
    x, offset, mask, weight, bias = (None if tensor is None else tensor.requires_grad_() for tensor in tensors)
    given = [tensor for tensor in (x, offset, mask, weight, bias) if tensor is not None]

    def function(*_):
        return call([x, offset, mask, weight, bias], settings)

    assert torch.autograd.gradcheck(function, given, fast_mode=True)


@pytest.mark.parametrize('case', CASES[:2])
def test_opcheck(case, opcheck):
    tensors, settings = make(case)
    inputs = [None if tensor is None else tensor.requires_grad_() for tensor in tensors]
    opcheck(torch.ops.icconv_mm.deform_conv2d.default, (*inputs, *settings))
    grad = reference(*tensors, *settings).detach()
    given = [None if tensor is None else tensor.detach() for tensor in tensors[:4]]
    opcheck(torch.ops.icconv_mm.deform_conv2d_grad.default, (grad, *given, *settings))


def test_gradients_of_the_reference_are_those_of_autograd():
    tensors, settings = make(CASES[1], torch.float64)
    expected = with_gradients(lambda inputs: reference(*inputs, *settings), tensors)
    torch.manual_seed(1)
    grad = torch.randn(expected[0].shape, dtype=torch.float64)
    assert_all_close(gradients(grad, *tensors[:4], *settings), expected[1:5])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'offset': torch.zeros(1, 18, 5, 5)}, r'offset must have the shape \[1, 18, 4, 4\], got \[1, 18, 5, 5\]'),
        ({'mask': torch.zeros(1, 3, 4, 4)}, r'mask must have the shape \[1, 9, 4, 4\]'),
        ({'bias': torch.zeros(3)}, r'bias must have the shape \[2\]'),
        ({'stride': 0}, r'stride must be one or two numbers in 1'),
        ({'deform_groups': 3}, r'deform_groups=3 does not divide the 4 channels'),
        ({'groups': 3}, 'groups'),
        ({'x': torch.zeros(4, 6, 6)}, 'x must have 4 dimensions'),
    ],
)
def test_errors(change, message):
    arguments = {'x': torch.zeros(1, 4, 6, 6), 'offset': torch.zeros(1, 18, 4, 4), 'weight': torch.zeros(2, 4, 3, 3)}
    with pytest.raises(ValueError, match=message):
        deform_conv2d(**{**arguments, **change})


def test_half_precision_is_computed_in_float32():
    tensors, settings = make(CASES[0], torch.bfloat16)
    wide = [None if tensor is None else tensor.float() for tensor in tensors]
    y = call(tensors, settings)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, call(wide, settings).bfloat16())


@pytest.mark.parametrize('case', CASES[:4])
def test_transforms_of_torch_func(case):
    tensors, settings = make(case, torch.float64, scale=0.3)
    used = [tensor for tensor in tensors if tensor is not None]

    def function(*given):
        given = iter(given)
        return call([None if tensor is None else next(given) for tensor in tensors], settings)

    cotangent = torch.randn_like(function(*used))
    given = [tensor.clone().requires_grad_() for tensor in used]
    expected = torch.autograd.grad(function(*given), given, cotangent)
    torch.testing.assert_close(torch.func.vjp(function, *used)[1](cotangent), expected)
    tangents = tuple(map(torch.randn_like, used))
    out, tangent = torch.func.jvp(function, tuple(used), tangents)
    assert torch.equal(out, function(*used))
    pairs = sum((one * other).sum() for one, other in zip(expected, tangents))
    torch.testing.assert_close((cotangent * tangent).sum(), pairs)


@pytest.mark.parametrize('case', CASES[:4])
def test_traces_and_files_of_the_older_exporter_have_operators_of_torch(case, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    tensors, settings = make(case, scale=0.3)

    class Network(torch.nn.Module):
        def forward(self, x):
            return call([x, *tensors[1:]], settings)

    network, x = Network(), tensors[0]
    traced = torch.jit.trace(network, (x,))
    assert 'icconv_mm::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), network(x), rtol=1e-4, atol=1e-4)  # other order of sums
    options = dict(dynamo=False) if 'dynamo' in torch.onnx.export.__code__.co_varnames else {}
    torch.onnx.export(network, (x,), str(tmp_path / 'net.onnx'), opset_version=17, input_names=['x'], **options)
    session = onnxruntime.InferenceSession(tmp_path / 'net.onnx', providers=['CPUExecutionProvider'])
    (out,) = session.run(None, {'x': x.numpy()})
    torch.testing.assert_close(torch.from_numpy(out), network(x), rtol=1e-4, atol=1e-4)
