"""One convolution in the place of a convolution, a batch norm and a ReLU."""

import copy

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from icconv_mm.layers import ICConv2d, ICConv2dReLU, PyConv2d, PyConv2dReLU
from icconv_mm.layers.cudnn_conv import CudnnConv2d, CudnnConv2dReLU
from icconv_mm.layers.packed_conv import PackedConv2d, PackedConv2dReLU

# what computes relu(conv(x)) in one operator
RECTIFIED = {
    ICConv2d: ICConv2dReLU,
    PyConv2d: PyConv2dReLU,
    PackedConv2d: PackedConv2dReLU,
    CudnnConv2d: CudnnConv2dReLU,
}


class Folded(nn.Identity):
    """Stands where a layer was that is now part of the convolution before it."""

    def train(self, mode: bool = True) -> 'Folded':
        """As ``nn.Module.train``, but training mode is an error."""
        if mode:
            raise RuntimeError(
                'this model is deployed (icconv_mm.deploy): its batch norms are part of the convolutions, so '
                'it cannot be trained. Train the model that it was made from'
            )
        return super().train(mode)


def fold_norm(conv: nn.Module, norm: _BatchNorm) -> nn.Module:
    """A new convolution, with bias, that computes ``norm(conv(x))`` of two modules in evaluation mode."""
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
