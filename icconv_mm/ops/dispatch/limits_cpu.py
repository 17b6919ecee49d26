"""Which calls the compiled CPU kernels of the inception and the pyramidal convolution (``csrc/cpu``) get."""

import torch

from icconv_mm.ops.common.tensors import device_refusal, tensors_of
from icconv_mm.ops.dispatch import backend

_DTYPES = (torch.float32, torch.bfloat16)
_LANES = 16  # a group with fewer channels leaves parts of the vectors empty


def _refusal(*args) -> str | None:
    tensors = tensors_of(args)
    if reason := device_refusal(tensors, 'cpu'):
        return reason
    dtypes = list(dict.fromkeys(t.dtype for t in tensors))
    if len(dtypes) > 1 or dtypes[0] not in _DTYPES:
        return f'it takes float32 or bfloat16, the same for all, got {" and ".join(map(str, dtypes))}'
    return None


def _small_groups(x, weight, bias, pattern, stride, groups) -> str | None:
    inside = weight.shape[1]
    if groups > 1 and inside < _LANES:
        return f'{inside} channels in a group; below {_LANES} the reference is faster'
    return None


# The kernels are chosen wherever they were measured to be faster than the reference (docs/performance.md).
LIMITS = {
    f'{convolution}{which}': backend.Limits(_refusal)
    for convolution in ('inception_conv2d', 'pyconv2d')
    for which in ('', '_grad_input', '_grad_weight')
}
LIMITS['inception_conv2d'] = backend.Limits(_refusal, _small_groups)
