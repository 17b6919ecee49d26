"""Inception convolutions with standardised weights, for mmcv's ``ConvWS2d`` and ``ConvAWS2d``."""

import torch
from torch import Tensor

from icconv_mm.compat import ConvAWS2d, ConvWS2d
from icconv_mm.layers.inception_conv import ICConv2d


class ICConvWS2d(ICConv2d, ConvWS2d):
    """A ``ConvWS2d`` of several dilations, from :func:`icconv_mm.layers.to_inception`.

    Each filter is normalised to mean 0 and deviation 1: Weight Standardization, https://arxiv.org/abs/1903.10520.
    """

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return self.convolve(x, (self.weight - mean) / (deviation + self.eps))


class ICConvAWS2d(ICConv2d, ConvAWS2d):
    """A ``ConvAWS2d`` of several dilations: the standardised filters have a scale and a shift as buffers."""

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self._get_weight(self.weight))


STANDARDIZED = {ConvWS2d: ICConvWS2d, ConvAWS2d: ICConvAWS2d}
