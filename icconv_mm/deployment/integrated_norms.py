"""Integrated batch norm: in evaluation mode it is linear, and part of the pyramid convolution before it."""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from icconv_mm.deployment.chains import has_statistics
from icconv_mm.deployment.folding import Folded
from icconv_mm.layers import PConvLayer, ScaleEqualizedConv2d
from icconv_mm.necks import SEPC


def fold_integrated_norms(module: nn.Module) -> int:
    """Folds the norms that a pyramid convolution or the neck SEPC itself has, in place; gives their number.

    Offsets of deformable convolutions read the input, not the output, and stay as they are.
    """
    if type(module) is PConvLayer:
        # y = conv + norm over a sum: all its terms are scaled, one of them is shifted
        norms = [('norm', (module.from_same, module.from_coarser, module.from_finer))]
    elif type(module) is SEPC:
        norms = [(f'{branch}_norm', (getattr(module, f'{branch}_conv'),)) for branch in module.branches]
    else:
        return 0
    found = [(name, convs) for name, convs in norms if _folds(getattr(module, name), convs)]
    for name, convs in found:
        for conv in convs:
            _scale(conv, getattr(module, name), shift=conv is convs[0])
        setattr(module, name, None)
        module.add_module(f'{name}_folded', Folded().eval())  # refuses training mode, is not called
    return len(found)


def _folds(norm: nn.Module | None, convs: tuple[nn.Module, ...]) -> bool:
    return norm is not None and has_statistics(norm) and all(type(conv) is ScaleEqualizedConv2d for conv in convs)


@torch.no_grad()
def _scale(conv: nn.Conv2d, norm: _BatchNorm, shift: bool) -> None:
    """Folds the norm into a convolution, in place; without its shift where another term of the sum carries that."""
    nothing = torch.zeros_like(norm.running_mean)
    mean, bias = (norm.running_mean, norm.bias) if shift else (nothing, nothing)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, mean, norm.running_var, norm.eps, norm.weight, bias
    )
