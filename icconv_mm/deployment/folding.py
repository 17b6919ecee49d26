"""Folding batch norms into the convolutions before them."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from icconv_mm.layers import PyConv2d, ScaleEqualizedConv2d
from icconv_mm.layers.fast_eval import declares


class Folded(nn.Identity):
    """Placeholder of a layer that is now part of the convolution before it."""

    def train(self, mode: bool = True) -> 'Folded':
        """Sets the mode as ``nn.Module.train``; training mode is an error."""
        if mode:
            raise RuntimeError(
                'this model is deployed (icconv_mm.deploy): its batch norms are part of the convolutions, so '
                'it cannot be trained. Train the model that it was made from'
            )
        return super().train(mode)


def fold_norm(conv: nn.Module, norm: _BatchNorm) -> nn.Module:
    """Returns a new convolution, with bias, that computes ``norm(conv(x))`` of two modules in evaluation mode."""
    if not isinstance(conv, PyConv2d):
        return fuse_conv_bn_eval(conv, norm, transpose=isinstance(conv, nn.ConvTranspose2d))
    new, begin = copy.deepcopy(conv), 0
    for level in new.pyconv_levels:
        part = slice(begin, begin + level.out_channels)
        begin = part.stop
        tensors = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        mean, var, weight, bias = (None if tensor is None else tensor[part] for tensor in tensors)
        level.weight, level.bias = fuse_conv_bn_weights(level.weight, level.bias, mean, var, norm.eps, weight, bias)
    return new


def fold_integrated_norms(module: nn.Module) -> int:
    """Folds the integrated norms of a module, in place; returns their number.

    In evaluation mode such a norm is linear. A module whose exact class has ``norms_and_convs`` names each norm and the
    convolutions whose sum it normalises. Offsets of deformable convolutions depend on the input, not the output, and
    stay unchanged.
    """
    if not declares(module, 'norms_and_convs'):
        return 0
    found = [(name, convs) for name, convs in module.norms_and_convs() if _folds(getattr(module, name), convs)]
    for name, convs in found:
        for conv in convs:  # all terms of the sum are scaled, one is shifted
            _scale(conv, getattr(module, name), shift=conv is convs[0])
        setattr(module, name, None)
        module.add_module(f'{name}_folded', Folded().eval())  # refuses training mode; it is never called
    return len(found)


def has_statistics(norm: nn.Module) -> bool:
    """Whether a batch norm has running statistics."""
    return norm.running_mean is not None and norm.running_var is not None


def _folds(norm: nn.Module | None, convs: tuple[nn.Module, ...]) -> bool:
    return norm is not None and has_statistics(norm) and all(type(conv) is ScaleEqualizedConv2d for conv in convs)


@torch.no_grad()
def _scale(conv: nn.Conv2d, norm: _BatchNorm, shift: bool) -> None:
    """Folds the norm into a convolution, in place; without its shift if another term of the sum has it."""
    nothing = torch.zeros_like(norm.running_mean)
    mean, bias = (norm.running_mean, norm.bias) if shift else (nothing, nothing)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, norm.running_var, norm.eps, norm.weight, bias
    )
