"""The module of the pyramidal convolution."""

from collections.abc import Sequence, Sized
from typing import Any

import torch
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.layers.settings import settings_of
from icconv_mm.ops import pyconv2d, pyconv2d_relu
from icconv_mm.torch_private import class_of, is_compiling, must_be_called, refuse_script


class PyConv2d(nn.Module):
    """Parallel convolutions of several kernel sizes and groups on one input, concatenated over the channels.

    Level l is an ``nn.Conv2d`` with the keys ``pyconv_levels.l.weight`` and ``.bias``; all levels are padded so that
    their outputs have one size.

    It is no ``conv_cfg``, which has one number of output channels and one kernel, not one per level. A config builds it
    by ``type='icconv_mm.PyConv2d'`` with the arguments below.

    Args:
        in_channels: C_in.
        out_channels: Output channels of each level; the attribute ``out_channels`` is their sum.
        kernel_sizes: Kernel size of each level: an odd number, or a pair of them (height, width).
        groups: Groups of each level, a number that divides C_in and the channels of the level.
        stride: Stride of all levels on both axes; 1 by default.
        dilation: Dilation of all levels on both axes; 1 by default.
        bias: Whether the levels have a bias; False by default.

    Raises:
        InputError: If an argument is no list, lists differ in length or are empty, a kernel is even, or groups do not
            divide the channels; the message names the argument or the level, and the numbers.

    Source: PyConv, https://arxiv.org/abs/2006.11538, section 3.

    Example:
        >>> conv = PyConv2d(16, out_channels=[8, 8], kernel_sizes=[3, 5], groups=[1, 4])
        >>> conv(torch.randn(1, 16, 32, 32)).shape
        torch.Size([1, 16, 32, 32])
    """

    operator = staticmethod(pyconv2d)
    __prepare_scriptable__ = refuse_script
    makes_new_map = True  # of this exact class: see icconv_mm.layers.fast_eval

    def __init__(
        self,
        in_channels: int,
        out_channels: Sequence[int],
        kernel_sizes: Sequence[int | tuple[int, int]],
        groups: Sequence[int],
        stride: int = 1,
        dilation: int = 1,
        bias: bool = False,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        for name, value in dict(out_channels=out_channels, kernel_sizes=kernel_sizes, groups=groups).items():
            if not isinstance(value, Sized):
                raise InputError(f'{name} must be a list with one entry per level, got {value!r}')
        kernels = [kernel if isinstance(kernel, Sequence) else (kernel, kernel) for kernel in kernel_sizes]
        _check_levels(in_channels, out_channels, kernels, groups, stride, dilation)
        self.in_channels, self.out_channels = in_channels, sum(out_channels)
        self.groups, self.stride, self.dilation = tuple(groups), stride, dilation
        shared = dict(stride=stride, dilation=dilation, bias=bias, device=device, dtype=dtype)
        self.pyconv_levels = nn.ModuleList(
            nn.Conv2d(
                in_channels,
                channels,
                tuple(kernel),
                padding=tuple(dilation * (side // 2) for side in kernel),
                groups=group,
                **shared,
            )
            for channels, kernel, group in zip(out_channels, kernels, groups)
        )

    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor: see :mod:`icconv_mm.layers.settings`."""
        levels = self.pyconv_levels
        return dict(
            in_channels=self.in_channels,
            out_channels=[level.out_channels for level in levels],
            kernel_sizes=[level.kernel_size for level in levels],
            groups=self.groups,
            stride=self.stride,
            dilation=self.dilation,
            bias=levels[0].bias is not None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, ceil(H / stride), ceil(W / stride)]``."""
        levels = list(member(self, 'pyconv_levels'))
        if not self.has_plain_levels(levels):
            return self.run_levels(x, levels)
        weights = [member(level, 'weight') for level in levels]
        bias = None if member(levels[0], 'bias') is None else torch.cat([level.bias for level in levels])
        return self.operator(x, weights, bias, self.groups, self.stride, self.dilation)

    def run_levels(self, x: Tensor, levels: Sequence[nn.Module]) -> Tensor:
        """Computes ``forward`` by the modules of the levels, with their hooks and parametrisations."""
        return torch.cat([level(x) for level in levels], 1)

    def has_plain_levels(self, levels: Sequence[nn.Module]) -> bool:
        """Whether the operator gives the results of the levels in their present state.

        A level is plain unless it was replaced or parametrised, has hooks, or a changed setting.
        """
        if is_compiling():  # dynamo does not trace the other checks
            have_hooks = any(level._forward_hooks or level._forward_pre_hooks for level in levels)
        else:
            have_hooks = must_be_called(*levels, including_backward=True)
        if have_hooks or len(levels) != len(self.groups):
            return False
        has_bias, steps = levels[0].bias is not None, ((self.stride,) * 2, (self.dilation,) * 2)
        for level, groups in zip(levels, self.groups):
            if class_of(level) is not nn.Conv2d or level.padding_mode != 'zeros' or level.groups != groups:
                return False
            height, width = level.kernel_size
            same = self.dilation * (height // 2), self.dilation * (width // 2)
            if (level.stride, level.dilation) != steps or level.padding != same or (level.bias is not None) != has_bias:
                return False
        return True


class PyConv2dReLU(PyConv2d):
    """``relu(PyConv2d(x))`` in one operator, without gradient; arguments and keys are those of ``PyConv2d``.

    For deployed networks (:func:`icconv_mm.deploy`).

    Example:
        >>> conv = PyConv2d(16, out_channels=[8, 8], kernel_sizes=[3, 5], groups=[1, 4]).requires_grad_(False)
        >>> PyConv2dReLU.of(conv)(torch.randn(1, 16, 32, 32)).min()
        tensor(0.)
    """

    operator = staticmethod(pyconv2d_relu)
    makes_new_map = True

    @classmethod
    def of(cls, conv: PyConv2d) -> 'PyConv2dReLU':
        """Returns the layer with the levels of ``conv``."""
        new = cls(**settings_of(conv), device='meta')  # whose levels are replaced
        new.pyconv_levels = conv.pyconv_levels
        return new.train(conv.training)

    def run_levels(self, x: Tensor, levels: Sequence[nn.Module]) -> Tensor:
        """As of a :class:`PyConv2d`, then ReLU."""
        return super().run_levels(x, levels).relu_()


def member(module: nn.Module, name: str) -> Tensor | nn.Module | None:
    """``getattr(module, name)`` of a parameter or submodule in a third of the time."""
    if not is_compiling():
        if name in module._parameters:
            return module._parameters[name]
        if name in module._modules:
            return module._modules[name]
    return getattr(module, name)  # wrappers of networks may replace a parameter by a tensor


def _check_levels(in_channels, out_channels, kernels, groups, stride, dilation):
    lengths = len(out_channels), len(kernels), len(groups)
    if len(set(lengths)) != 1 or not lengths[0]:
        raise InputError(
            'out_channels, kernel_sizes and groups must have one entry per level, got {} and {} and {}'.format(*lengths)
        )
    if not (isinstance(stride, int) and isinstance(dilation, int) and min(stride, dilation) >= 1):
        raise InputError(f'stride and dilation must be integers of at least 1, got {stride!r} and {dilation!r}')
    for level, (channels, kernel, group) in enumerate(zip(out_channels, kernels, groups)):
        if len(kernel) != 2 or any(side < 1 or side % 2 == 0 for side in kernel):
            raise InputError(f'level {level}: the sides of the kernel must be odd, got {tuple(kernel)}')
        if group < 1 or in_channels % group or channels % group:
            raise InputError(
                f'level {level}: {group} groups do not divide its {in_channels} input and {channels} output channels'
            )
