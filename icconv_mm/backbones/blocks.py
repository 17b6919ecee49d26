"""The blocks of the ResNet skeleton.

Deep Residual Learning for Image Recognition, https://arxiv.org/abs/1512.03385, with torchvision's keys.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal

import torch.utils.checkpoint
from torch import Tensor, nn

from icconv_mm.compat import DropPath, build_norm_layer, build_plugin_layer
from icconv_mm.errors import InputError
from icconv_mm.layers.fast_eval import Shortcut, add, convolve, declares, norm_relu
from icconv_mm.layers.recomputed_norm import recomputed_norm_relu
from icconv_mm.torch_private import has_hooks_recursive, is_compiling

MakeConv = Callable[..., nn.Module]  # (input channels, output channels, stride) -> a convolution


def norm_property(number: int) -> property:
    """Returns a property for the norm of ``conv{number}``, whose name depends on its kind."""
    return property(
        lambda self: getattr(self, getattr(self, f'norm{number}_name')), doc=f'The norm of ``conv{number}``.'
    )


class Block(nn.Module):
    """Convolutions with norms, and a shortcut around them; a subclass sets their sizes.

    Args:
        in_channels: C_in.
        width: Channels between the convolutions.
        out_channels: C_out.
        conv1x1: Function of (input channels, output channels, stride) that returns a 1x1 convolution.
        conv3x3: The same for 3x3 convolutions; ``dilation=`` replaces the stage's.
        norm_cfg: Config of the norm layers, such as ``dict(type='BN')``.
        stride: Stride of the block on both axes; 1 by default.
        style: Convolution of a bottleneck with the stride, 'pytorch' or 'caffe': see :class:`ResNet`.
        downsample: The layers of the shortcut; None where it is the identity.
        plugins: Layers after a convolution, ``dict(cfg=dict(type=...), position='after_conv2')`` each.
        drop_path: Probability that a sample skips the convolutions while training (stochastic depth).
        with_cp: Whether the backward pass recomputes activations: see :class:`ResNet`.
    """

    kernel_sizes: tuple[int, ...] = ()  # of the convolutions
    norm1, norm2, norm3 = norm_property(1), norm_property(2), norm_property(3)

    def __init__(
        self,
        in_channels: int,
        width: int,
        out_channels: int,
        conv1x1: MakeConv,
        conv3x3: MakeConv,
        norm_cfg: dict,
        stride: int = 1,
        style: str = 'pytorch',
        downsample: nn.Module | None = None,
        plugins: Sequence[dict] = (),
        drop_path: float = 0.0,
        with_cp: bool | Literal['norms'] = False,
    ):
        super().__init__()
        self.with_cp = with_cp
        self.drop_path = DropPath(drop_path) if drop_path else None
        last = len(self.kernel_sizes)
        strided = 2 if last == 3 and style == 'pytorch' else 1
        sizes = [in_channels, *[width] * (last - 1), out_channels]
        for number, (kernel, inside, outside) in enumerate(zip(self.kernel_sizes, sizes, sizes[1:]), 1):
            make = conv1x1 if kernel == 1 else conv3x3
            if kernel == 3 and number == last:  # as in the libraries, for any dilation of the stage
                make = partial(conv3x3, dilation=1)
            self.add_module(f'conv{number}', make(inside, outside, stride if number == strided else 1))
            self.last_norm_name = add_norm(self, norm_cfg, outside, number)
            self.add_module(f'relu{number}' if number < last else 'relu', nn.ReLU(inplace=True))
        self.downsample = downsample
        self.plugin_names: dict[int, list[str]] = {number: [] for number in range(1, last + 1)}
        for plugin in plugins:
            number, cfg = int(plugin['position'].removeprefix('after_conv')), dict(plugin['cfg'])
            name, layer = build_plugin_layer(cfg, cfg.pop('postfix', ''), in_channels=sizes[number])
            if hasattr(self, name):
                raise InputError(f'a block has two plugins {name!r}: give one of them another postfix')
            self.add_module(name, layer)
            self.plugin_names[number].append(name)

    def apply_plugins(self, x: Tensor, number: int) -> Tensor:
        """Returns ``x`` after the plugins of convolution ``number``."""
        for name in self.plugin_names[number]:
            x = getattr(self, name)(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        if self.with_cp and self.with_cp != 'norms' and x.requires_grad:
            return torch.utils.checkpoint.checkpoint(self._output, x, use_reentrant=False)
        return self._output(x)

    def _output(self, x: Tensor, can_overwrite_input: bool = False) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        *inner, last = self.plugin_names
        recomputation = nullcontext()
        for number in inner:
            # a list: the compiler of torch 2.1 cannot unpack a generator
            conv, norm, relu = [getattr(self, f'{kind}{number}') for kind in ('conv', 'norm', 'relu')]
            with recomputation:
                x = convolve(x, conv)  # a separate line frees narrow maps before a norm allocates wide ones
            if self.with_cp == 'norms' and not self.plugin_names[number]:  # a plugin keeps its input
                x, recomputation = recomputed_norm_relu(x, conv, norm, relu)
            else:
                x, recomputation = self.apply_plugins(norm_relu(x, conv, norm, relu), number), nullcontext()
        conv = getattr(self, f'conv{last}')
        if not is_compiling() and type(x) is Tensor and self.adds_in_convolution():
            is_new = type(self.downsample) is Shortcut and declares(self.downsample[-2], 'takes_sum')
            has_no_reader = is_new and not has_hooks_recursive(self.downsample)
            return conv.add_relu(x, shortcut, can_overwrite_input or has_no_reader)
        with recomputation:
            x = convolve(x, conv)
        norm = getattr(self, f'norm{last}')
        if not self.plugin_names[last] and self.drop_path is None:
            return norm_relu(x, conv, norm, self.relu, shortcut)
        x = self.apply_plugins(norm_relu(x, conv, norm), last)
        if self.drop_path is not None:
            x = self.drop_path(x)
        return self.relu(add(x, shortcut, conv, norm))  # plugins do not read their outputs again either

    def adds_in_convolution(self) -> bool:
        """Whether the last convolution includes sum and ReLU, as in deployed models if these have no hooks."""
        last = len(self.kernel_sizes)
        conv, norm = getattr(self, f'conv{last}'), getattr(self, f'norm{last}')
        if not declares(conv, 'takes_sum'):
            return False
        if self.plugin_names[last] or self.drop_path is not None:
            return False
        is_folded = type(norm).forward is nn.Identity.forward and type(self.relu) is nn.ReLU
        return is_folded and not any(map(has_hooks_recursive, (conv, norm, self.relu)))


class Stage(nn.Sequential):
    """The blocks of a stage in sequence.

    In a deployed model a block overwrites its input if that is the output of the block before and neither has hooks: a
    new map costs more than the sum, because the system clears it page by page.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]``, which is not changed -> ``[N, C_out, H', W']``."""
        if is_compiling() or type(x) is not Tensor:
            return super().forward(x)
        can_overwrite_input = False  # whether only the next block reads x
        for block in self:
            is_known = declares(block, 'frees_input') and declares(block.conv1, 'frees_input')
            keeps_no_maps = is_known and block.adds_in_convolution() and not has_hooks_recursive(block)
            x = block._output(x, block.downsample is None) if can_overwrite_input and keeps_no_maps else block(x)
            can_overwrite_input = keeps_no_maps
        return x


class BasicBlock(Block):
    """Two 3x3 convolutions (ResNet-18 and 34)."""

    expansion = 1
    kernel_sizes = (3, 3)
    frees_input = True  # of this exact class: it keeps nothing of its input if its first convolution does not


class Bottleneck(Block):
    """A 1x1, a 3x3 and a 1x1 convolution (ResNet-50 and deeper, ResNeXt)."""

    expansion = 4
    kernel_sizes = (1, 3, 1)
    frees_input = True


def add_norm(module: nn.Module, norm_cfg: dict, channels: int, number: int) -> str:
    """Registers a norm in ``module`` under the name of its kind ('bn1', 'gn1'), and returns the name."""
    name, layer = build_norm_layer(norm_cfg, channels, postfix=number)
    module.add_module(name, layer)
    setattr(module, f'norm{number}_name', name)
    return name
