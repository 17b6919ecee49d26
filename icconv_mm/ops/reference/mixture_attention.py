"""Attention with a mixture of softmaxes by its definition, in quadratic memory."""

import torch.nn.functional as F
from torch import Tensor


def forward(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """What a trace or an exported ONNX model holds; arguments and result as those of ``mixture_attention``."""
    logits = scale * q.transpose(-2, -1) @ k
    if bias is not None:
        logits = logits + bias[:, :, None]
    weights = (mix[..., None, None] * F.softmax(logits, -1)).sum(1)
    return v @ weights.transpose(-2, -1)
