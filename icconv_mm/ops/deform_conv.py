"""Deformable convolution: each output pixel moves the taps of the kernel to positions of its own."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.dispatch import Kernel
from icconv_mm.ops.library import checked_call, define, differentiable_once
from icconv_mm.ops.tensors import check_groups, device_refusal, tensors_of
from icconv_mm.patterns.pattern import MAX_DILATION


def deform_conv2d(
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    deform_groups: int = 1,
    *,
    bias: Tensor | None = None,
) -> Tensor:
    """Deformable convolution, with a mask the modulated one; differentiable once.

    A tap of the kernel reads the input at its own position plus an offset, bilinear between four pixels, zero outside.
    Numbers are those of mmcv's ``deform_conv2d`` and ``modulated_deform_conv2d`` and of torchvision's
    ``deform_conv2d``; where a sample lies exactly on the border of the map, the gradient of its offset is mmcv's. The
    compiled CPU kernel takes float32; dtypes of 16 bits are computed in float32. Traces and ``torch.func`` see torch's
    operators.

    Args:
        x: Input ``[N, C_in, H, W]``, contiguous or channels_last (the output then is, too).
        weight: ``[C_out, C_in / groups, kh, kw]``.
        offset: ``[N, 2 deform_groups kh kw, H', W']`` in pixels of the input, (dy, dx) of each tap.
        mask: ``[N, deform_groups kh kw, H', W']``, a factor of each sample; None for 1.
        stride, padding, dilation: One number, or one for each axis.
        groups: Groups of the convolution.
        deform_groups: Parts of the input channels, each with offsets of its own.
        bias: ``[C_out]``, or None.

    Returns:
        ``[N, C_out, H', W']`` in the dtype of ``x``.

    Raises:
        ValueError: If shapes and numbers do not fit; the message names the argument and both shapes.

    Source: Deformable ConvNets, https://arxiv.org/abs/1703.06211, and v2, https://arxiv.org/abs/1811.11168.

    Example:
        >>> x, weight, offset = torch.randn(1, 8, 16, 16), torch.randn(6, 8, 3, 3), torch.zeros(1, 18, 14, 14)
        >>> deform_conv2d(x, weight, offset).shape  # of an ordinary convolution, as all offsets are zero
        torch.Size([1, 6, 14, 14])
    """
    settings = *(_pair(name, value) for name, value in _axes(stride, padding, dilation)), groups, deform_groups
    dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
    tensors = (None if tensor is None else tensor.to(dtype) for tensor in (x, offset, mask, weight, bias))
    plain = standard if torch.onnx.is_in_onnx_export() else reference
    return checked_call(_forward, plain, _check_deform, *tensors, *settings).to(x.dtype)


def _axes(stride, padding, dilation):
    return ('stride', stride), ('padding', padding), ('dilation', dilation)


def _pair(name: str, value: int | Sequence[int]) -> list[int]:
    pair = [value, value] if isinstance(value, int) else list(value)
    least = 0 if name == 'padding' else 1
    if len(pair) != 2 or not all(least <= value <= MAX_DILATION for value in pair):
        raise ValueError(f'{name} must be one or two numbers in {least}..{MAX_DILATION}, got {value}')
    return pair


def _check_deform(x, offset, mask, weight, bias, *settings) -> None:
    stride, padding, dilation, groups, deform_groups = settings
    for name, tensor in {'x': x, 'offset': offset, 'weight': weight}.items():
        if tensor.dim() != 4:
            raise ValueError(f'{name} must have 4 dimensions, got {list(tensor.shape)}')
    check_groups(x, weight, groups)
    channels = x.shape[1]
    if deform_groups < 1 or channels % deform_groups:
        raise ValueError(f'deform_groups={deform_groups} does not divide the {channels} channels of x')
    if bias is not None and bias.shape != (weight.shape[0],):
        raise ValueError(f'bias must have the shape [{weight.shape[0]}], got {list(bias.shape)}')
    height, width = _out_size(x.shape, weight.shape, stride, padding, dilation)
    taps = weight.shape[2] * weight.shape[3] * deform_groups
    for name, tensor, count in [('offset', offset, 2 * taps), ('mask', mask, taps)]:
        expected = (x.shape[0], count, height, width)
        if tensor is not None and tuple(tensor.shape) != expected:
            raise ValueError(f'{name} must have the shape {list(expected)}, got {list(tensor.shape)}')


def _out_size(x_shape, weight_shape, stride, padding, dilation) -> list[int]:
    """Returns height and width of the output, 0 where the kernel is larger than the padded input."""
    numbers = zip(x_shape[2:], weight_shape[2:], stride, padding, dilation)
    return [max((size + 2 * pad - step * (side - 1) - 1) // by + 1, 0) for size, side, by, pad, step in numbers]


# --- the reference, in torch's own steps


class _Samples:
    """Where an output pixel samples: ``[N, deform groups, 1, taps x pixels]`` for each of four corners."""

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor | None, kernel: Sequence[int], settings: Sequence):
        stride, padding, dilation, _, parts = settings
        images, _, *size = x.shape
        self.size, self.parts, self.taps = size, parts, kernel[0] * kernel[1]
        moved = offset.reshape(images, parts, self.taps, 2, *offset.shape[2:])
        coordinates = [
            moved[:, :, :, axis] + grid for axis, grid in enumerate(_grids(offset, kernel, stride, padding, dilation))
        ]
        inside = torch.stack([(p > -1) & (p < side) for p, side in zip(coordinates, size)]).all(0)
        # what is outside, or no number, must not become an index
        y, x_ = (torch.where(inside, p, torch.zeros_like(p)) for p in coordinates)
        top, left = y.detach().floor(), x_.detach().floor()
        self.y, self.x = self._flat(y - top), self._flat(x_ - left)
        self.mask = None if mask is None else self._flat(mask.reshape(y.shape))
        self.index, self.valid = [], []
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            row, column = (top + down).long(), (left + right).long()
            valid = inside & (row >= 0) & (row < size[0]) & (column >= 0) & (column < size[1])
            index = row.clamp(0, max(size[0] - 1, 0)) * size[1] + column.clamp(0, max(size[1] - 1, 0))
            self.index.append(self._flat(index))
            self.valid.append(self._flat(valid).to(offset.dtype))

    def _flat(self, x: Tensor) -> Tensor:
        return x.flatten(2).unsqueeze(2)

    def shares(self) -> list[Tensor]:
        """Returns the bilinear factors of the corners."""
        y, x = self.y, self.x
        return [(1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x]

    def corners(self, x: Tensor) -> list[Tensor]:
        """Returns the pixels ``[N, deform groups, channels of one, taps x pixels]`` at the corners, zero outside."""
        flat = x.reshape(len(x), self.parts, x.shape[1] // self.parts, self.size[0] * self.size[1])
        return [
            torch.where(valid > 0, flat.gather(3, index.expand(-1, -1, flat.shape[2], -1)), flat.new_zeros(()))
            for index, valid in zip(self.index, self.valid)
        ]


def _grids(like: Tensor, kernel, stride, padding, dilation) -> list[Tensor]:
    """Returns the rows and the columns of the taps without offsets, ``[taps, H', W']`` or less."""
    rows, columns = (
        torch.arange(side, device=like.device, dtype=like.dtype)[:, None] * step
        + torch.arange(out, device=like.device, dtype=like.dtype) * by
        - pad
        for side, out, by, pad, step in zip(kernel, like.shape[2:], stride, padding, dilation)
    )
    return [rows.repeat_interleave(kernel[1], 0)[:, :, None], columns.repeat(kernel[0], 1)[:, None]]


def reference(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, *settings) -> Tensor:
    """``[N, C_in, H, W]``, offsets, mask, weight, bias -> ``[N, C_out, H', W']``."""
    groups = settings[3]
    samples = _Samples(x, offset, mask, weight.shape[2:], settings)
    columns = _columns(samples, samples.corners(x), groups, offset.shape[2:])
    y = torch.einsum('goi,ngip->ngop', _matrix(weight, groups), columns)
    y = y.reshape(len(x), len(weight), *offset.shape[2:])
    return y if bias is None else y + bias[:, None, None]


def _matrix(weight: Tensor, groups: int) -> Tensor:
    return weight.reshape(groups, weight.shape[0] // groups, weight[0].numel())


def _columns(samples: _Samples, corners: Sequence[Tensor], groups: int, size: Sequence[int]) -> Tensor:
    """Returns the samples ``[N, groups, channels of a group x taps, H' W']``."""
    values = sum(share * corner for share, corner in zip(samples.shares(), corners))
    if samples.mask is not None:
        values = values * samples.mask
    rows = values.shape[1] * values.shape[2] // groups * samples.taps
    return values.reshape(len(values), groups, rows, size[0] * size[1])


def gradients(
    grad: Tensor, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, *settings
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients for the input, the offsets, the mask (empty without one) and the weights."""
    groups, deform_groups = settings[3:]
    samples = _Samples(x, offset, mask, weight.shape[2:], settings)
    corners = samples.corners(x)
    columns = _columns(samples, corners, groups, offset.shape[2:])
    grad_of_groups = grad.reshape(len(x), groups, weight.shape[0] // groups, columns.shape[-1])
    to_weight = torch.einsum('ngop,ngip->goi', grad_of_groups, columns).reshape(weight.shape)
    to_values = torch.einsum('goi,ngop->ngip', _matrix(weight, groups), grad_of_groups).reshape(corners[0].shape)
    a, b, c, d = ((to_values * corner).sum(2, keepdim=True) for corner in corners)
    y, x_, shares = samples.y, samples.x, samples.shares()
    to_y, to_column = (1 - x_) * (c - a) + x_ * (d - b), (1 - y) * (b - a) + y * (d - c)
    to_mask = grad.new_empty(0)
    if mask is not None:
        to_mask = sum(share * dot for share, dot in zip(shares, (a, b, c, d))).reshape(mask.shape)
        to_y, to_column, to_values = (tensor * samples.mask for tensor in (to_y, to_column, to_values))
    pairs = [tensor.reshape(len(x), deform_groups, samples.taps, *offset.shape[2:]) for tensor in (to_y, to_column)]
    to_offset = torch.stack(pairs, 3).reshape(offset.shape)
    to_x = x.new_zeros(len(x), deform_groups, x.shape[1] // deform_groups, x.shape[2] * x.shape[3])
    for share, valid, index in zip(shares, samples.valid, samples.index):
        to_x = to_x.scatter_add(3, index.expand_as(to_values), to_values * (share * valid))
    return to_x.reshape(x.shape), to_offset, to_mask, to_weight


# --- by operators that every runtime has


def standard(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None, *settings) -> Tensor:
    """Computes :func:`reference` by a GridSample for each tap and a 1x1 convolution, for maps of any size."""
    stride, padding, dilation, groups, deform_groups = settings
    (rows, columns), (height, width), kernel = x.shape[-2:], offset.shape[-2:], weight.shape[2:]
    ys = torch.arange(height, dtype=x.dtype, device=x.device)[:, None] * stride[0] - padding[0]
    xs = torch.arange(width, dtype=x.dtype, device=x.device)[None] * stride[1] - padding[1]
    taps = []
    for tap in range(kernel[0] * kernel[1]):
        samples = []
        for group, part in enumerate(x.split(x.shape[1] // deform_groups, 1)):
            at = group * kernel[0] * kernel[1] + tap
            y = ys + tap // kernel[1] * dilation[0] + offset[:, 2 * at]
            x_ = xs + tap % kernel[1] * dilation[1] + offset[:, 2 * at + 1]
            grid = torch.stack([(2 * x_ + 1) / columns - 1, (2 * y + 1) / rows - 1], -1)
            sample = F.grid_sample(part, grid, mode='bilinear', padding_mode='zeros', align_corners=False)
            samples.append(sample if mask is None else sample * mask[:, at : at + 1])
        taps.append(samples[0] if deform_groups == 1 else torch.cat(samples, 1))
    if groups > 1:
        taps = [part for parts in zip(*(tap.chunk(groups, 1) for tap in taps)) for part in parts]
    matrix = weight.permute(0, 2, 3, 1).reshape(weight.shape[0], -1, 1, 1)
    return F.conv2d(torch.cat(taps, 1), matrix, bias, groups=groups)


# --- fakes and registration


def _fake(x, offset, mask, weight, *_):
    return x.new_empty((x.shape[0], weight.shape[0], *offset.shape[2:]))


def _fake_gradients(grad, x, offset, mask, weight, *_):
    to_mask = x.new_empty(0) if mask is None else mask.new_empty(mask.shape)
    return x.new_empty(x.shape), offset.new_empty(offset.shape), to_mask, weight.new_empty(weight.shape)


def _flops(x, offset, mask, weight, *_, out_shape=None, **__) -> int:
    return 2 * x[0] * offset[2] * offset[3] * weight[0] * weight[1] * weight[2] * weight[3]


def _gradients_of(grad, x, offset, mask, weight, bias, *settings):
    to_bias = None if bias is None else grad.sum((0, 2, 3))
    return *_backward(grad, x, offset, mask, weight, *settings), to_bias


def _refusal(*args) -> str | None:
    tensors = tensors_of(args)
    if reason := device_refusal(tensors, 'cpu'):
        return reason
    dtypes = {tensor.dtype for tensor in tensors}
    return None if dtypes == {torch.float32} else f'it needs float32, got {" and ".join(sorted(map(str, dtypes)))}'


_SETTINGS = 'int[] stride, int[] padding, int[] dilation, int groups, int deform_groups'
_backward = define(
    'deform_conv2d_grad',
    f'(Tensor grad, Tensor x, Tensor offset, Tensor? mask, Tensor weight, {_SETTINGS})'
    ' -> (Tensor, Tensor, Tensor, Tensor)',
    gradients,
    fake=_fake_gradients,
    kernels={'cpu': Kernel(_refusal)},
    flops=lambda grad, *args, **__: 2 * _flops(*args),
)
_forward = define(
    'deform_conv2d',
    f'(Tensor x, Tensor offset, Tensor? mask, Tensor weight, Tensor? bias, {_SETTINGS}) -> Tensor',
    reference,
    fake=_fake,
    autograd=differentiable_once(_gradients_of, 5),
    kernels={'cpu': Kernel(_refusal)},
    flops=_flops,
    layout_of=0,
    standard=standard,
)
