"""Networks with torch's own convolutions instead of inception and pyramidal ones, for tools that need these."""

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn

from icconv_mm.layers.convert import convert_all
from icconv_mm.layers.inception_conv import ICConv2d, ICConv2dReLU
from icconv_mm.layers.pyconv import PyConv2d, PyConv2dReLU
from icconv_mm.ops.inception_conv import make_parts


class SplitConv2d(nn.Module):
    """Ordinary convolutions whose concatenated outputs are those of one layer.

    Args:
        convolutions: The convolutions.
        inputs: The input channels of each convolution.
        outputs: The output channels of each convolution.
        relu: Whether a ReLU follows.
    """

    def __init__(
        self,
        convolutions: Iterable[nn.Conv2d],
        inputs: Sequence[Sequence[int]],
        outputs: Sequence[Sequence[int]],
        relu: bool = False,
    ):
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.relu = nn.ReLU() if relu else None
        channels = max(channel for part in inputs for channel in part) + 1
        for number, part in enumerate(inputs):
            self.register_buffer(f'inputs_{number}', torch.tensor(part) if len(part) < channels else None, False)
        order = torch.tensor([channel for part in outputs for channel in part]).argsort()
        self.register_buffer('order', None if order.equal(torch.arange(len(order))) else order, False)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C_in, H, W]`` -> ``[N, C_out, H', W']``."""
        maps = []
        for number, convolution in enumerate(self.convolutions):
            inputs = getattr(self, f'inputs_{number}')
            maps.append(convolution(x if inputs is None else x.index_select(1, inputs)))
        y = maps[0] if len(maps) == 1 else torch.cat(maps, 1)
        y = y if self.order is None else y.index_select(1, self.order)
        return y if self.relu is None else self.relu(y)


def to_standard(module: nn.Module) -> nn.Module:
    """Replaces the inception and pyramidal convolutions of a network by ordinary ones, in place.

    For tools that support only ``nn.Conv2d``: quantisation, pruning, TorchScript. The network computes the same, more
    slowly, and its state dict has other keys: one convolution for each dilation, one for each level. It can be trained.
    Special layers, such as weight-standardised ones, stay unchanged.

    Args:
        module: Any network, deployed or not, or a single layer.

    Returns:
        ``module`` (a new layer if it is itself such a convolution).

    Example:
        >>> network = nn.Sequential(ICConv2d(8, 6, pattern=[(4, 1, 1), (2, 2, 4)]), nn.ReLU())
        >>> [(conv.out_channels, conv.dilation) for conv in to_standard(network)[0].convolutions]
        [(4, (1, 1)), (2, (2, 4))]
    """
    layers = [(name, child) for name, child in module.named_modules() if type(child) in _SPLITS]
    return convert_all(module, layers, lambda layer, _: _SPLITS[type(layer)](layer), layers)


def _split_inception(layer: ICConv2d) -> SplitConv2d:
    parts = make_parts(layer.scaled_pattern.flat, layer.in_channels, layer.groups)
    convolutions = []
    for part in parts:
        settings = dict(stride=layer.stride, padding=part.dilation, dilation=part.dilation, groups=part.groups)
        conv = nn.Conv2d(len(part.inputs), len(part.outputs), 3, **settings, device='meta')
        chosen = list(part.outputs)
        conv.weight = nn.Parameter(layer.weight.detach()[chosen], layer.weight.requires_grad)
        bias = layer.bias
        conv.bias = None if bias is None else nn.Parameter(bias.detach()[chosen], bias.requires_grad)
        convolutions.append(conv)
    inputs, outputs = ([getattr(part, which) for part in parts] for which in ('inputs', 'outputs'))
    new = SplitConv2d(convolutions, inputs, outputs, isinstance(layer, ICConv2dReLU))
    return new.to(layer.weight.device).train(layer.training)


def _split_pyramidal(layer: PyConv2d) -> SplitConv2d:
    ends = [0, *accumulate(level.out_channels for level in layer.pyconv_levels)]
    outputs = [range(*end) for end in pairwise(ends)]
    inputs = [range(layer.in_channels)] * len(outputs)
    return SplitConv2d(layer.pyconv_levels, inputs, outputs, isinstance(layer, PyConv2dReLU)).train(layer.training)


_SPLITS = {
    ICConv2d: _split_inception,
    ICConv2dReLU: _split_inception,
    PyConv2d: _split_pyramidal,
    PyConv2dReLU: _split_pyramidal,
}
