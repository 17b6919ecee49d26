"""Which calls the compiled CUDA kernels of the inception and the pyramidal convolution (``csrc/cuda``) get.

They compile wherever nvcc is, with or without a GPU, so having them says nothing about a GPU: they are chosen only on
those, and for those dtypes, for which their tests have passed and they were faster than the reference (docs/backends.md
has GPU, date and figures). They can be asked for by name everywhere. Where the table of measured kernels
(:mod:`icconv_mm.ops.kernel_table`) has an entry for a call, the entry decides.
"""

from collections.abc import Callable
from functools import cache

import torch

from icconv_mm.ops.backend import Limits
from icconv_mm.ops.kernel_table import REFERENCE, declare, find
from icconv_mm.ops.tensors import FLOAT_DTYPES, off_device, tensors_of

# compute capability -> dtypes whose tests (`pytest -m gpu`) passed on such a GPU and which were faster there; float64
# passed as well, but its kernels are plain ones
PROVEN: dict[tuple[int, int], frozenset[torch.dtype]] = {
    (9, 0): frozenset({torch.float32, torch.float16, torch.bfloat16}),
}
MAX_DILATION = 8  # largest dilation of a call that is chosen: a wider border leaves a processor smaller tiles
_MANY_CHANNELS = 64  # of a dilation, on average: a float32 convolution for each dilation is then as fast
_VECTOR_BYTES = 16  # the tiled kernels copy so much of a pixel's channels at once


def _refusal(first, second, *_) -> str | None:
    if reason := off_device((first, second), 'cuda'):
        return reason
    if first.device != second.device:
        return f'it takes tensors on one device, got {first.device} and {second.device}'
    if first.dtype not in FLOAT_DTYPES or first.dtype != second.dtype:
        return f'it takes tensors of one floating-point type, got {first.dtype} and {second.dtype}'
    return None


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _advice(kernel: str | None, tensor, group_in: int, group_out: int, pattern) -> str | None:
    dilation = max((max(h, w) for n, h, w in zip(*[iter(pattern)] * 3) if n), default=1)
    if dilation > MAX_DILATION:
        return f'its largest dilation is {dilation}; above {MAX_DILATION} it was not measured'
    if kernel is not None:
        return f'the reference was faster on a GPU like {tensor.device}' if kernel == REFERENCE else None
    if tensor.dtype not in PROVEN.get(_capability(tensor.device), ()):
        return f'its tests have not passed with {tensor.dtype} on a GPU like {tensor.device}'
    if not _fills_vectors(tensor, group_in, group_out):
        return f'{group_in} -> {group_out} channels of a group do not fill {_VECTOR_BYTES} bytes'
    return None


def _fills_vectors(tensor, group_in: int, group_out: int) -> bool:
    vector = _VECTOR_BYTES // tensor.element_size()
    return group_in % vector == 0 and group_out % vector == 0


def _strided(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _measured_output(x, weight, bias, pattern, stride, groups) -> str | None:
    pixels = x.shape[0] * _strided(x.shape[2], stride) * _strided(x.shape[3], stride)
    shape = weight.shape[1], weight.shape[0] // groups, groups, stride, pixels
    return find('inception_conv2d', _capability(x.device), x.dtype, *shape)


def _measured_grad_input(grad, weight, size, pattern, stride, groups) -> str | None:
    shape = weight.shape[1], weight.shape[0] // groups, groups, stride, _pixels(grad)
    return find('inception_conv2d_grad_input', _capability(grad.device), grad.dtype, *shape)


def _measured_grad_weight(grad, x, pattern, stride, groups) -> str | None:
    shape = x.shape[1] // groups, grad.shape[1] // groups, groups, stride, _pixels(grad)
    return find('inception_conv2d_grad_weight', _capability(grad.device), grad.dtype, *shape)


def _pixels(grad) -> int:
    return grad.shape[0] * grad.shape[2] * grad.shape[3]


def _advice_output(x, weight, bias, pattern, stride, groups) -> str | None:
    kernel = _measured_output(x, weight, bias, pattern, stride, groups)
    if kernel is None and x.dtype == torch.float32:
        mean = weight.shape[0] / len(set(zip(pattern[1::3], pattern[2::3])))
        if mean >= _MANY_CHANNELS:
            return f'{mean:.0f} float32 channels share a dilation; from {_MANY_CHANNELS} the reference is as fast'
    return _advice(kernel, x, weight.shape[1], weight.shape[0] // groups, pattern)


def _advice_grad_input(grad, weight, size, pattern, stride, groups) -> str | None:
    kernel = _measured_grad_input(grad, weight, size, pattern, stride, groups)
    return _advice(kernel, grad, weight.shape[1], weight.shape[0] // groups, pattern)


def _advice_grad_weight(grad, x, pattern, stride, groups) -> str | None:
    kernel = _measured_grad_weight(grad, x, pattern, stride, groups)
    return _advice(kernel, grad, x.shape[1] // groups, grad.shape[1] // groups, pattern)


def _kernel(measured: Callable[..., str | None]) -> Callable[..., str]:
    """The name of the kernel that serves a call of a proven or requested backend."""

    def name(tensor, other, *rest) -> str:
        kernel = measured(tensor, other, *rest)
        if kernel not in (None, REFERENCE):
            return kernel
        group_in, group_out = _group_sizes(measured, tensor, other, rest[-1])
        plain = tensor.dtype == torch.float64 or not _fills_vectors(tensor, group_in, group_out)
        return 'direct' if plain or _capability(tensor.device)[0] < 8 else 'tiled'

    return name


def _group_sizes(measured, tensor, other, groups: int) -> tuple[int, int]:
    if measured is _measured_grad_weight:
        return other.shape[1] // groups, tensor.shape[1] // groups
    return other.shape[1], other.shape[0] // groups


def _pyconv_output(x, weights, bias, groups, stride, dilation) -> str | None:
    pixels = x.shape[0] * _strided(x.shape[2], stride) * _strided(x.shape[3], stride)
    channels = x.shape[1], sum(weight.shape[0] for weight in weights)
    return _find_pyconv('pyconv2d', x, channels, groups, stride, dilation, pixels, _levels(weights))


def _pyconv_grad_input(grad, weights, size, groups, stride, dilation) -> str | None:
    channels = weights[0].shape[1] * groups[0], grad.shape[1]
    levels = _levels(weights)
    return _find_pyconv('pyconv2d_grad_input', grad, channels, groups, stride, dilation, _pixels(grad), levels)


def _pyconv_grad_weight(grad, x, shapes, groups, stride, dilation) -> str | None:
    channels = x.shape[1], grad.shape[1]
    levels = ','.join(str(max(sides)) for sides in zip(shapes[1::3], shapes[2::3]))
    return _find_pyconv('pyconv2d_grad_weight', grad, channels, groups, stride, dilation, _pixels(grad), levels)


def _find_pyconv(operator: str, tensor, channels, groups, stride, dilation, pixels, levels) -> str | None:
    if dilation != 1:  # not what the table is about
        return None
    return find(operator, _capability(tensor.device), tensor.dtype, *channels, groups[0], stride, pixels, levels)


def _levels(weights) -> str:
    return ','.join(str(max(weight.shape[2:])) for weight in weights)


def _pyconv_refusal(*args) -> str | None:
    tensors = tensors_of(args)
    return next(filter(None, (_refusal(tensors[0], other) for other in tensors)), None)


def _pyconv_limits(measured: Callable[..., str | None], default: Callable[..., str]) -> Limits:
    def advice(tensor, *rest) -> str | None:
        kernel = measured(tensor, *rest)
        if kernel is None:
            return f'none of its kernels was measured with such a call on a GPU like {tensor.device}'
        return f'the reference was faster on a GPU like {tensor.device}' if kernel == REFERENCE else None

    def name(*args) -> str:
        kernel = measured(*args)
        return default(*args) if kernel in (None, REFERENCE) else kernel

    return Limits(_pyconv_refusal, advice, name)


declare('inception_conv2d', 'tiled', 'direct', 'kn2row', 'hybrid', 'fused', 'fused_wgmma', usual='tiled')
declare('inception_conv2d_grad_input', 'tiled', 'direct', 'kn2row', usual='tiled')
declare('inception_conv2d_grad_weight', 'tiled', 'direct', 'kn2row', usual='tiled')
declare('pyconv2d', 'dense', 'merged', 'tiled')
declare('pyconv2d_grad_input', 'dense', 'merged', 'tiled')
declare('pyconv2d_grad_weight', 'dense', 'merged', 'tiled')
INCEPTION_OUTPUT = Limits(_refusal, _advice_output, _kernel(_measured_output))
INCEPTION_GRAD_INPUT = Limits(_refusal, _advice_grad_input, _kernel(_measured_grad_input))
INCEPTION_GRAD_WEIGHT = Limits(_refusal, _advice_grad_weight, _kernel(_measured_grad_weight))
PYCONV_OUTPUT = _pyconv_limits(_pyconv_output, lambda *_: 'tiled')
PYCONV_GRAD_INPUT = _pyconv_limits(_pyconv_grad_input, lambda *args: 'tiled' if args[-2] == 1 else 'merged')  # stride
PYCONV_GRAD_WEIGHT = _pyconv_limits(_pyconv_grad_weight, lambda *_: 'merged')
