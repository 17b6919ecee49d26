"""The effective receptive field of a network, measured by gradients.

Understanding the Effective Receptive Field in Deep Convolutional Neural Networks, https://arxiv.org/abs/1701.04128: the
gradient of one output pixel for the input image measures how much every input pixel matters to it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class ReceptiveField(NamedTuple):
    """The effective receptive field of one output pixel.

    Attributes:
        share: ``[size, size]``, the share of each input pixel in the squared gradient; sums to one.
        extent_h: Root mean square distance from the centre, in input pixels, along the height.
        extent_w: Root mean square distance from the centre, in input pixels, along the width.
    """

    share: Tensor
    extent_h: float
    extent_w: float


def effective_receptive_field(
    network: nn.Module, size: int = 641, images: int = 2, stage: int = -1, seed: int = 0
) -> ReceptiveField:
    """Measures the effective receptive field of the centre pixel of a feature map.

    The gradient is that of a random combination of all channels at the centre pixel, on images of white noise.

    Args:
        network: A backbone: ``[1, 3, size, size]`` -> a tuple of feature maps. It runs in evaluation mode.
        size: Height and width of the image; if it cuts the field off, the extents are too small.
        images: Number of images over which the squared gradient is averaged; 2 by default.
        stage: Index of the feature map that is measured; the last by default.
        seed: Seed of the random images and of the combinations of channels; 0 by default.
    """
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(size, size, dtype=torch.float64)
    with evaluating(network):
        for _ in range(images):
            image = torch.randn(1, 3, size, size, generator=generator).requires_grad_()
            feature = network(image)[stage]
            center = feature[0, :, feature.shape[2] // 2, feature.shape[3] // 2]
            mixed = (center * torch.randn(center.shape, generator=generator)).sum()
            total += torch.autograd.grad(mixed, image)[0].double().square().sum((0, 1))
    share = total / total.sum()
    return ReceptiveField(share, _extent(share.sum(1)), _extent(share.sum(0)))


@torch.no_grad()
def randomize(network: nn.Module, size: int = 128, seed: int = 0) -> nn.Module:
    """Gives a network random weights (He) and batch norms that normalise white noise, as early in training."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight[:, 0].numel() // module.groups
            module.weight.normal_(0, (2 / fan_out) ** 0.5, generator=generator)
    norms = {module: module.momentum for module in network.modules() if isinstance(module, _BatchNorm)}
    for norm in norms:
        norm.momentum = 1.0  # the statistics are those of the next batch
    network.train()
    network(torch.randn(2, 3, size, size, generator=generator))
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return network.eval()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Runs a block in evaluation mode and without gradients of weights, which would cost as much as the image's."""
    training = [module for module in network.modules() if module.training]
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()  # of some modules of task libraries does not return the module
    network.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in learning:
            parameter.requires_grad = True


def _extent(profile: Tensor) -> float:
    """Returns the root mean square distance from the mean position of a distribution over pixels."""
    position = torch.arange(len(profile), dtype=profile.dtype)
    mean = (profile * position).sum()
    return ((profile * (position - mean).square()).sum()).sqrt().item()
