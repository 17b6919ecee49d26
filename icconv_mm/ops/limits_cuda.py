"""Which calls the compiled CUDA kernels of the inception convolution and its gradients (``csrc/cuda``) get.

They compile wherever nvcc is, with or without a card, so having them says nothing about a card: they are chosen only on
those, and for those dtypes, for which their tests have passed and they were faster than the reference (docs/backends.md
has card, date and figures). They can be asked for by name everywhere.
"""

from functools import cache

import torch

from icconv_mm.ops.backend import Limits
from icconv_mm.ops.tensors import FLOAT_DTYPES

# compute capability -> dtypes whose tests (`pytest -m gpu`) passed on such a card and which were faster there; float64
# passed as well, but its kernels are plain ones
PROVEN: dict[tuple[int, int], frozenset[torch.dtype]] = {
    (9, 0): frozenset({torch.float32, torch.float16, torch.bfloat16}),
}
MAX_DILATION = 8  # of what is chosen: with wider surroundings of a tile, less of it fits a processor
_MANY_CHANNELS = 64  # of a dilation, on average: a float32 convolution for each dilation is then as fast
_VECTOR_BYTES = 16  # the tiled kernels copy so much of a pixel's channels at once


def _refusal(first, second, *_) -> str | None:
    for tensor in (first, second):
        if tensor.device.type != 'cuda':
            return f'it takes tensors on a CUDA device, got {tensor.device}'
    if first.device != second.device:
        return f'it takes tensors on one device, got {first.device} and {second.device}'
    if first.dtype not in FLOAT_DTYPES or first.dtype != second.dtype:
        return f'it takes tensors of one floating-point type, got {first.dtype} and {second.dtype}'
    return None


@cache
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def _advice(tensor, group_in: int, group_out: int, pattern) -> str | None:
    if tensor.dtype not in PROVEN.get(_capability(tensor.device), ()):
        return f'its tests have not passed with {tensor.dtype} on a card like {tensor.device}'
    vector = _VECTOR_BYTES // tensor.element_size()
    if group_in % vector or group_out % vector:
        return f'{group_in} -> {group_out} channels of a group do not fill {_VECTOR_BYTES} bytes'
    dilation = max((max(h, w) for n, h, w in zip(*[iter(pattern)] * 3) if n), default=1)
    if dilation > MAX_DILATION:
        return f'its largest dilation is {dilation}; above {MAX_DILATION} it was not measured'
    return None


def _advice_output(x, weight, bias, pattern, stride, groups) -> str | None:
    if x.dtype == torch.float32:
        mean = weight.shape[0] / len(set(zip(pattern[1::3], pattern[2::3])))
        if mean >= _MANY_CHANNELS:
            return f'{mean:.0f} float32 channels share a dilation; from {_MANY_CHANNELS} the reference is as fast'
    return _advice(x, weight.shape[1], weight.shape[0] // groups, pattern)


def _advice_grad_input(grad, weight, size, pattern, stride, groups) -> str | None:
    return _advice(grad, weight.shape[1], weight.shape[0] // groups, pattern)


def _advice_grad_weight(grad, x, pattern, stride, groups) -> str | None:
    return _advice(grad, x.shape[1] // groups, grad.shape[1] // groups, pattern)


INCEPTION_OUTPUT = Limits(_refusal, _advice_output)
INCEPTION_GRAD_INPUT = Limits(_refusal, _advice_grad_input)
INCEPTION_GRAD_WEIGHT = Limits(_refusal, _advice_grad_weight)
