"""An ordinary convolution in inference, with its filters in the order that oneDNN reads fastest.

torch hands oneDNN the filters of a convolution in torch's own order, at every call, and for that order there are slower
kernels. Which order is the fastest depends on the size of the map. The compiled CPU operator keeps packed filters
beside the weights, as inception convolutions do; ``F.conv2d``, which :func:`icconv_mm.layers.packed_conv.convolve`
calls everywhere else, is its reference.
"""

import logging
from collections.abc import Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.common.tensors import is_autocast
from icconv_mm.ops.dispatch import backend
from icconv_mm.utils.torch_private import in_transform_or_mode, is_jit_or_onnx_tracing

_log = logging.getLogger(__name__)


def has_packed_conv_kernel(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether :func:`packed_conv2d` may run: its kernel serves such tensors, and nothing looks at the single steps.

    For tensors that are no subclass. A choice of its own: that of an operator, and its dispatch, cost more than a small
    map.
    """
    if in_transform_or_mode() or is_jit_or_onnx_tracing() or backend.requested() not in ('auto', 'cpu'):
        return False
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias)):
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
    # no random numbers: a training is to draw the same ones whether it comes here or not
    x, weight = torch.arange(1024.0).sin().view(1, 16, 8, 8), torch.arange(2304.0).cos().view(16, 16, 3, 3)
    x, weight, pair = x.to(dtype), weight.to(dtype), (1, 1)
    try:
        got = [packed_conv2d(x, weight, None, pair, pair, pair, relu=relu) for relu in (False, True)]
        got.append(got[0].clone())
        packed_conv2d_add_relu_(got[2], x, weight, None, pair, pair, pair)
    except RuntimeError as error:
        _log.info('oneDNN does not pack the filters of %s convolutions: %s', dtype, error)
        return False
    y = F.conv2d(x.float(), weight.float(), padding=1)
    expected = y, y.relu(), 2 * y.relu()
    return all(torch.allclose(one.float(), other, rtol=0.02, atol=0.2) for one, other in zip(got, expected))
