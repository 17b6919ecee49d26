"""Ordinary convolutions of deployed networks on a GPU: convolution, bias, addition and ReLU in one kernel of cuDNN."""

from torch import Tensor

from icconv_mm.layers.inference_conv import InferenceConv2d, output_shape, settings_of
from icconv_mm.ops.steps.cudnn_conv import cudnn_conv2d_add_relu, cudnn_conv2d_relu, has_cudnn_conv_kernel


class CudnnConv2d(InferenceConv2d):
    """A convolution of a deployed network, which takes the addition of a shortcut and ReLU.

    Where cuDNN does not serve, or somebody looks at the single steps, torch's ordinary operators compute the same.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> CudnnConv2d.of(conv).add_relu(torch.randn(1, 8, 16, 16), torch.randn(1, 6, 16, 16)).min()
        tensor(0.)
    """

    def forward(self, input: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        if self.relu and has_cudnn_conv_kernel(self.weight, input):
            return cudnn_conv2d_relu(input, self.weight, self.bias, *settings_of(self))
        return super().forward(input)

    def add_relu(self, x: Tensor, z: Tensor, overwrite: bool = False) -> Tensor:
        """As of an :class:`InferenceConv2d`; cuDNN makes no use of ``overwrite``."""
        if has_cudnn_conv_kernel(self.weight, x, z) and z.shape == output_shape(self, x):
            return cudnn_conv2d_add_relu(x, z, self.weight, self.bias, *settings_of(self))
        return super().add_relu(x, z)


class CudnnConv2dReLU(CudnnConv2d):
    """``relu(CudnnConv2d(x))`` in one kernel, without gradient.

    Example:
        >>> conv = nn.Conv2d(8, 6, 3, padding=1).requires_grad_(False)
        >>> CudnnConv2dReLU.of(conv)(torch.randn(1, 8, 16, 16)).min()
        tensor(0.)
    """

    relu = True
