"""Inception convolution: a 3x3 convolution in which every output channel has its own dilation."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from icconv_mm.ops.common.tensors import check_groups, check_tensors, empty
from icconv_mm.ops.definition.convolution import Convolution
from icconv_mm.ops.dispatch import limits_cpu, limits_cuda
from icconv_mm.ops.reference import inception_conv as reference
from icconv_mm.patterns import DilationPattern
from icconv_mm.patterns.pattern import MAX_DILATION


def inception_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    pattern: DilationPattern | Iterable[tuple[int, int, int]],
    stride: int = 1,
    groups: int = 1,
) -> Tensor:
    """Inception convolution, differentiable to any order.

    Output channel i is the convolution of the input with its 3x3 filter at dilation (d_h, d_w)(i). The padding equals
    the dilation, so the output has the size, and the computation the cost, of the dense convolution.

    Args:
        x: Input ``[N, C_in, H, W]``, contiguous or channels_last (the output then is, too).
        weight: Filters ``[C_out, C_in / groups, 3, 3]``, those of the dense convolution.
        bias: ``[C_out]`` or None.
        pattern: A table of runs ``(out_channels, dilation_h, dilation_w)`` in the order of the output channels, which
            sums to ``C_out``.
        stride: Stride of both axes; 1 by default.
        groups: Groups of channels, as in ``torch.nn.functional.conv2d``; 1 by default. A run may end inside a group.

    Returns:
        ``[N, C_out, ceil(H / stride), ceil(W / stride)]``.

    Raises:
        ValueError: If shapes, groups and pattern do not fit; the message says what was got and what was expected.

    Source: IC-Conv, https://arxiv.org/abs/2012.13587, section 3.1.

    Example:
        >>> x, weight = torch.randn(1, 8, 32, 32), torch.randn(6, 8, 3, 3)
        >>> inception_conv2d(x, weight, bias=None, pattern=[(4, 1, 1), (2, 2, 4)], stride=2).shape
        torch.Size([1, 6, 16, 16])
    """
    pattern = DilationPattern.of(pattern)
    return _convolution.call(x, (weight,), bias, (pattern.flat, stride, groups), several=not pattern.is_uniform)


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
    settings = pattern.flat, stride, groups
    return _convolution.call(x, (weight,), bias, settings, several=not pattern.is_uniform, relu=True)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Sequence[int], stride: int, groups: int) -> None:
    """Raise ValueError unless these are arguments of an inception convolution, ``pattern`` flat."""
    if x.dim() != 4:
        raise ValueError(f'x must have the shape [N, C_in, H, W], got {list(x.shape)}')
    if weight.dim() != 4 or tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f'weight must have the shape [C_out, C_in / groups, 3, 3], got {list(weight.shape)}')
    if not 1 <= stride <= MAX_DILATION or groups < 1:
        raise ValueError(
            f'stride must be in 1..{MAX_DILATION} and groups at least 1, got stride={stride}, groups={groups}'
        )
    if x.shape[1] < 1:
        raise ValueError(f'x must have at least one channel, got {list(x.shape)}')
    check_groups(x, weight, groups)
    if sum(pattern[::3]) != weight.shape[0]:
        raise ValueError(f'the pattern sums to {sum(pattern[::3])} channels, weight has {weight.shape[0]} filters')
    check_tensors({'x': x, 'weight': weight, 'bias': bias}, weight.shape[0])


def _flat(pattern: Iterable) -> tuple[int, ...]:
    """A pattern as the operator takes it, given so or as a table of runs."""
    pattern = tuple(pattern)
    return pattern if all(isinstance(each, int) for each in pattern) else DilationPattern.of(pattern).flat


def _grad_input_fake(grad, weight, size, pattern, stride, groups):
    return empty((grad.shape[0], weight.shape[1] * groups, *size), like=grad)


def _grad_weight_fake(grad, x, pattern, stride, groups):
    return grad.new_empty((grad.shape[1], x.shape[1] // groups, 3, 3))


_convolution = Convolution(
    inception_conv2d,
    reference,
    weights_schema='Tensor weight',
    settings_schema='int[] pattern, int stride, int groups',
    limits={'cpu': limits_cpu.LIMITS, 'cuda': limits_cuda.LIMITS},
    check=_check,
    dense=lambda pattern, stride, groups: (stride, pattern[1:3], groups),
    fast_call_maker='inception',
    grad_input_fake=_grad_input_fake,
    grad_weight_fake=_grad_weight_fake,
    converters={'pattern': _flat},
)
