"""Which calls the compiled CUDA kernels of the inception and the pyramidal convolution (``csrc/cuda``) get."""

from collections.abc import Callable, Iterable, Sequence

import torch

from icconv_mm.ops.common.tensors import FLOAT_DTYPES, device_refusal, tensors_of, triples
from icconv_mm.ops.dispatch import proven_gpus
from icconv_mm.ops.dispatch.backend import Limits
from icconv_mm.ops.dispatch.kernel_table import REFERENCE, find

LARGEST_CHOSEN_DILATION = 8  # of a call that is chosen: a wider border leaves a processor smaller tiles
_MANY_CHANNELS = 64  # of a dilation, on average: a float32 convolution for each dilation is then as fast
_VECTOR_BYTES = 16  # the tiled kernels copy so much of a pixel's channels at once


def _refusal(first, second, *_) -> str | None:
    if reason := device_refusal((first, second), 'cuda'):
        return reason
    if first.device != second.device:
        return f'it takes tensors on one device, got {first.device} and {second.device}'
    if first.dtype not in FLOAT_DTYPES or first.dtype != second.dtype:
        return f'it takes tensors of one floating-point type, got {first.dtype} and {second.dtype}'
    return None


def _limits(operator: str, sizes: Callable, refusal: Callable, objection: Callable[..., str | None]) -> Limits:
    """The limits of an operator of which the table knows some calls.

    Args:
        operator: Name of the operator.
        sizes: Function from a call to what :func:`find` takes after the dtype; None for what the table is not about.
        refusal: Function of a call, that of the limits.
        objection: Function of a call for which no kernel is in use or in the table, as that of the limits.
    """

    def table_first(tensor, *rest) -> str | None:
        numbers = sizes(tensor, *rest)
        known = numbers and find(operator, proven_gpus.capability(tensor.device), tensor.dtype, *numbers)
        if known is None:
            return objection(tensor, *rest)
        return f'the reference was faster on a GPU like {tensor.device}' if known == REFERENCE else None

    def kernel(*args) -> str | None:
        return getattr(torch.ops.icconv_mm, f'{operator}_kernel')(*args) or None

    return Limits(refusal, table_first, kernel)


def _pixels(maps, stride: int = 1) -> int:
    """The pixels of the outputs of a convolution of these maps, batch x height x width."""
    return maps.shape[0] * ((maps.shape[2] - 1) // stride + 1) * ((maps.shape[3] - 1) // stride + 1)


# --- inception convolutions


def _inception_limits(operator: str, sizes: Callable[..., tuple]) -> Limits:
    def fills_vectors(tensor, *rest) -> bool:
        vector = _VECTOR_BYTES // tensor.element_size()
        return not any(channels % vector for channels in sizes(tensor, *rest)[:2])

    def objection(tensor, *rest) -> str | None:
        *_, pattern, _, groups = rest
        group_in, group_out, *_ = sizes(tensor, *rest)
        if operator == 'inception_conv2d' and tensor.dtype == torch.float32:
            mean = group_out * groups / len({(h, w) for _, h, w in triples(pattern)})
            if mean >= _MANY_CHANNELS:
                return f'{mean:.0f} float32 channels share a dilation; from {_MANY_CHANNELS} the reference is as fast'
        if reason := proven_gpus.unproven('inception_conv2d', tensor):
            return reason
        if not fills_vectors(tensor, *rest):
            return f'{group_in} -> {group_out} channels of a group do not fill {_VECTOR_BYTES} bytes'
        return None

    limits = _limits(operator, sizes, _refusal, objection)
    return limits._replace(objection=lambda *args: _too_dilated(*args) or limits.objection(*args))


def _too_dilated(*args) -> str | None:
    *_, pattern, _, _ = args  # then the stride and the groups
    dilation = max((max(h, w) for n, h, w in triples(pattern) if n), default=1)
    if dilation > LARGEST_CHOSEN_DILATION:
        return f'its largest dilation is {dilation}; above {LARGEST_CHOSEN_DILATION} it was not measured'
    return None


def _output_sizes(x, weight, bias, pattern, stride, groups) -> tuple[int, ...]:
    return weight.shape[1], weight.shape[0] // groups, groups, stride, _pixels(x, stride)


def _grad_input_sizes(grad, weight, size, pattern, stride, groups) -> tuple[int, ...]:
    return weight.shape[1], weight.shape[0] // groups, groups, stride, _pixels(grad)


def _grad_weight_sizes(grad, x, pattern, stride, groups) -> tuple[int, ...]:
    return x.shape[1] // groups, grad.shape[1] // groups, groups, stride, _pixels(grad)


# --- pyramidal convolutions


def _pyconv_limits(operator: str, sizes: Callable[..., tuple]) -> Limits:
    def undilated(*args) -> tuple | None:
        *_, dilation = args
        return sizes(*args) if dilation == 1 else None

    def objection(tensor, *_) -> str:
        return f'none of its kernels was measured with such a call on a GPU like {tensor.device}'

    return _limits(operator, undilated, _pyconv_refusal, objection)


def _pyconv_refusal(*args) -> str | None:
    tensors = tensors_of(args)
    return next(filter(None, (_refusal(tensors[0], other) for other in tensors)), None)


def _levels(kernels: Iterable[Sequence[int]]) -> str:
    return ','.join(str(max(sides)) for sides in kernels)


def _pyconv_output_sizes(x, weights, bias, groups, stride, dilation) -> tuple:
    levels = _levels(weight.shape[2:] for weight in weights)
    return x.shape[1], sum(weight.shape[0] for weight in weights), groups[0], stride, _pixels(x, stride), levels


def _pyconv_grad_input_sizes(grad, weights, size, groups, stride, dilation) -> tuple:
    levels = _levels(weight.shape[2:] for weight in weights)
    return weights[0].shape[1] * groups[0], grad.shape[1], groups[0], stride, _pixels(grad), levels


def _pyconv_grad_weight_sizes(grad, x, shapes, groups, stride, dilation) -> tuple:
    levels = _levels(kernel for _, *kernel in triples(shapes))
    return x.shape[1], grad.shape[1], groups[0], stride, _pixels(grad), levels


_INCEPTION = {
    'inception_conv2d': _output_sizes,
    'inception_conv2d_grad_input': _grad_input_sizes,
    'inception_conv2d_grad_weight': _grad_weight_sizes,
}
_PYCONV = {
    'pyconv2d': _pyconv_output_sizes,
    'pyconv2d_grad_input': _pyconv_grad_input_sizes,
    'pyconv2d_grad_weight': _pyconv_grad_weight_sizes,
}
LIMITS = {name: _inception_limits(name, sizes) for name, sizes in _INCEPTION.items()}
LIMITS |= {name: _pyconv_limits(name, sizes) for name, sizes in _PYCONV.items()}
