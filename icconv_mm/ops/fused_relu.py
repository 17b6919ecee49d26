"""Convolution and ReLU in one operator, for networks in inference form."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from icconv_mm.ops import inception_conv, pyconv
from icconv_mm.ops.definition.operator import is_traced
from icconv_mm.ops.dispatch.fast_path import fast_call
from icconv_mm.patterns import DilationPattern


def inception_conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: DilationPattern | Iterable[tuple[int, int, int]],
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """``relu(inception_conv2d(...))``: arguments, result and errors are those of ``inception_conv2d``.

    A compiled kernel rectifies while it stores, which saves a pass over the output. There is no gradient.

    Raises:
        RuntimeError: Also, if an argument requires a gradient while gradients are recorded.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> inception_conv2d_relu(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)]).min() >= 0
        tensor(True)
    """
    pattern = DilationPattern.of(pattern)
    if len(pattern) > 1:
        out = fast_call('inception_conv2d_relu', (pattern.flat, stride, groups), x, (weight,), bias)
        if out is not None:
            return out
    if is_traced() or len(pattern) == 1:  # decomposed, or an ordinary convolution: nothing to fuse
        return inception_conv.inception_conv2d(x, weight, bias, pattern, stride, groups).relu_()
    inception_conv.check_call(x, weight, bias, pattern.flat, stride, groups)
    return inception_conv.output_relu(x, weight, bias, pattern.flat, stride, groups)


def pyconv2d_relu(
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    groups: Sequence[int],
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """``relu(pyconv2d(...))``: arguments, result and errors are those of ``pyconv2d``.

    As :func:`inception_conv2d_relu`.

    Raises:
        RuntimeError: Also, if an argument requires a gradient while gradients are recorded.

    Example:
        >>> x, weights = torch.randn(1, 8, 32, 32), [torch.randn(4, 8, 3, 3), torch.randn(4, 4, 5, 5)]
        >>> pyconv2d_relu(x, weights, bias=None, groups=[1, 2]).min() >= 0
        tensor(True)
    """
    weights, groups = list(weights), [int(group) for group in groups]
    if len(weights) > 1:
        out = fast_call('pyconv2d_relu', (tuple(groups), stride, dilation), x, weights, bias)
        if out is not None:
            return out
    if is_traced() or len(weights) == 1:
        return pyconv.pyconv2d(x, weights, bias, groups, stride, dilation).relu_()
    pyconv.check_call(x, weights, bias, groups, stride, dilation)
    return pyconv.output_relu(x, weights, bias, groups, stride, dilation)
