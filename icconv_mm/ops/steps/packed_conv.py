"""An ordinary convolution in inference, with its filters in the order that oneDNN reads fastest.

torch hands oneDNN the filters of a convolution in torch's own order, at every call, and for that order there are slower
kernels. Which order is the fastest depends on the size of the map. The compiled CPU operator keeps packed filters
beside the weights, as inception convolutions do; ``F.conv2d``, which :func:`icconv_mm.layers.packed_conv.convolve`
calls everywhere else, is its reference.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from icconv_mm.ops.common.tensors import is_autocast
from icconv_mm.ops.dispatch import backend
from icconv_mm.ops.steps.own_choice import computes_convolutions, is_recorded, may_run_on_cpu


def has_packed_conv_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether :func:`packed_conv2d` may run: its kernel serves such tensors, and nothing looks at the single steps.

    For tensors that are no subclass.
    """
    if is_recorded(x, weight, bias) or not may_run_on_cpu():
        return False
    if x.device.type != 'cpu' or weight.device.type != 'cpu' or x.dtype != weight.dtype:
        return False
    is_map = x.ndim == 4 and x.numel() > 0
    return is_map and not is_autocast('cpu') and torch.backends.mkldnn.enabled and packs(x.dtype)


def packed_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
    relu: bool = False,
) -> Tensor:
    """``F.conv2d``, then ReLU if told so, without gradient.

    Args:
        x: ``[N, C_in, H, W]``, not empty.
        weight: ``[C_out, C_in / groups, k_h, k_w]`` of the dtype of x.
        bias: ``[C_out]`` or None.
        stride, padding, dilation: Two numbers each, vertical and horizontal.
        groups: Groups of channels.
        relu: Whether negative values become zero.

    Returns:
        ``[N, C_out, H', W']``, channels_last.

    Raises:
        RuntimeError: If shapes or dtypes do not fit; it names those found.
    """
    run = torch.ops.icconv_mm.packed_conv2d_compiled.default  # is there only after the library is
    return run(x, weight, bias, stride, padding, dilation, groups, relu)


def packed_conv2d_add_relu_(
    z: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int = 1,
) -> None:
    """``z = relu(F.conv2d(x) + z)``, in place and without gradient: no map is made.

    Args:
        z: ``[N, C_out, H', W']``, channels_last, of the dtype of x.
        x, weight, bias, stride, padding, dilation, groups: The arguments of :func:`packed_conv2d`.

    Raises:
        RuntimeError: If shapes, dtypes or the memory format of z do not fit; it names those found.
    """
    run = torch.ops.icconv_mm.packed_conv2d_add_relu__compiled.default
    run(z, x, weight, bias, stride, padding, dilation, groups)


@cache
def packs(dtype: torch.dtype) -> bool:
    """Whether the operators are there and compute what they must: torch's build or the processor may lack a dtype."""
    if not torch.backends.mkldnn.is_available() or backend.missing_kernel('packed_conv2d_compiled', 'cpu') is not None:
        return False
    return computes_convolutions('oneDNN', _forms, torch.device('cpu'), dtype)


def _forms(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    settings, z = (weight, bias, (1, 1), (1, 1), (1, 1)), x.clone()
    packed_conv2d_add_relu_(z, x, *settings)
    return packed_conv2d(x, *settings, relu=True), z, packed_conv2d(x, *settings)
