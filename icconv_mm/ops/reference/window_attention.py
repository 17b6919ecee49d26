"""Attention of a fine map to windows of a coarse one by its definition, on unfolded windows."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cells_of(fine: int, coarse: int, device: torch.device) -> Tensor:
    """For every fine position along an axis, the coarse cell that holds its centre."""
    return (2 * torch.arange(fine, device=device) + 1) * coarse // (2 * fine)


def scale_of(channels: int, parts: int, window: int, similarity: str) -> float:
    """The factor of the similarities of a query and the keys of its window."""
    return {'euclidean': 1.0, 'embedded': (channels / parts) ** -0.5, 'dot': window**-2}[similarity]


def forward(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, window: int, similarity: str) -> Tensor:
    """What a trace or an exported ONNX model holds; arguments and result as those of ``window_attention``."""
    (batch, channels, height, width), parts, area = q.shape, mix.shape[1], window**2
    rows, columns = cells_of(height, k.shape[2], q.device), cells_of(width, k.shape[3], q.device)

    def unfold(x):  # [B, N, channels of a part, window^2, H, W]
        x = F.unfold(x, window, padding=window // 2).reshape(batch, x.shape[1], area, *k.shape[2:])
        return x.index_select(3, rows).index_select(4, columns)

    keys = unfold(k).reshape(batch, parts, -1, area, height, width)
    queries = q.reshape(batch, parts, -1, 1, height, width)
    if similarity == 'euclidean':
        logits = -(queries - keys).square().sum(2)
    else:
        logits = scale_of(channels, parts, window, similarity) * (queries * keys).sum(2)
    weights = logits if similarity == 'dot' else logits.softmax(2)
    weights = (mix[:, :, None, None, None] * weights).sum(1)
    return (weights[:, None] * unfold(v)).sum(2)
