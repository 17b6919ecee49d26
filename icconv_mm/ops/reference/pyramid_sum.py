"""The sum of a level of a pyramid and of the next coarser one upsampled, in torch's own steps."""

import torch.nn.functional as F
from torch import Tensor


def forward(own: Tensor, coarser: Tensor, finer: Tensor | None = None) -> Tensor:
    """``[N, C, H, W]``, ``[N, C, h, w]``, ``[N, C, H, W]`` -> ``[N, C, H, W]``."""
    y = own if finer is None else own + finer
    upsampled = F.interpolate(coarser, y.shape[-2:], mode='bilinear', align_corners=True)
    return y + upsampled.to(y.dtype)  # autocast interpolates in float32 where it has no other kernel
