"""DropBlock: dropout of contiguous regions of feature maps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.utils.arguments import check_positive, check_probability


class DropBlock2d(nn.Module):
    """Sets random squares of every channel to zero while training, and scales what is left to the same mean.

    Args:
        drop_prob: Expected share of the values that are dropped, in [0, 1); 0 switches it off.
        block_size: Side of the squares; on a map that is smaller, the smaller side of the map.

    Raises:
        InputError: If an argument is out of range.

    Source: DropBlock, https://arxiv.org/abs/1810.12890, algorithm 1, with a mask per channel.

    Example:
        >>> drop = DropBlock2d(drop_prob=0.2, block_size=3)
        >>> dropped = drop(torch.ones(1, 8, 32, 32)) == 0
        >>> 0.1 < dropped.float().mean() < 0.3
        tensor(True)
    """

    def __init__(self, drop_prob: float, block_size: int):
        super().__init__()
        check_probability(drop_prob=drop_prob)
        check_positive(block_size=block_size)
        self.drop_prob, self.block_size = drop_prob, block_size

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> the same shape."""
        if not self.training or self.drop_prob == 0 or x.numel() == 0:
            return x
        height, width = x.shape[2:]
        size = min(self.block_size, height, width)
        # centres are drawn where the whole block fits
        rows, columns = height - size + 1, width - size + 1
        gamma = min(1.0, self.drop_prob * height * width / (size**2 * rows * columns))
        centers = (torch.rand((*x.shape[:2], rows, columns), device=x.device) < gamma).to(torch.float32)
        dropped = F.max_pool2d(F.pad(centers, [size - 1] * 4), size, stride=1) > 0
        # counted in float32: float16 ends at 65504, which a map of 256 x 16 x 16 exceeds
        kept = (~dropped).sum(dtype=torch.float32)
        scale = (x.numel() / kept.clamp(min=1)).to(x.dtype)
        return x.masked_fill(dropped, 0) * scale

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob}, block_size={self.block_size}'
