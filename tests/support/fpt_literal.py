"""The transformers of FPT as the paper's equations say them, with the weights of a module of this package.

Positions i of the queries and j of the keys are axes of a tensor: memory is N_q x N_k, or even N_q x N_k x C. Under
autocast the convolutions are those of the module, in bfloat16; the equations are computed in float32.
"""

import functools

import torch
from torch import Tensor


def in_float32(equations):
    """Leaves autocast, with the tensors among the arguments in float32 if they are in bfloat16."""

    @functools.wraps(equations)
    def call(*args):
        with torch.autocast('cpu', enabled=False):
            return equations(*(x.float() if isinstance(x, Tensor) and x.dtype == torch.bfloat16 else x for x in args))

    return call


def positions(x: Tensor, parts: int) -> Tensor:
    """[B, C, H, W] -> [B, N, H W, C / N]: the features of each position, divided into N parts."""
    batch, channels = x.shape[:2]
    return x.reshape(batch, parts, channels // parts, -1).transpose(2, 3)


def mixture_weights(module, keys: Tensor) -> Tensor:
    """pi_n = softmax_n(w_n^T mean of k), below equation 2; keys [B, C, h, w]."""
    return torch.softmax(keys.mean((2, 3)) @ module.mixture.weight.T, dim=1)


def f_mos(scores: Tensor, pi: Tensor) -> Tensor:
    """Equation 2: scores [B, N, i, j], pi [B, N] -> weights [B, i, j]."""
    exponentials = torch.exp(scores - scores.amax(-1, keepdim=True).detach())
    return (pi[:, :, None, None] * exponentials / exponentials.sum(-1, keepdim=True)).sum(1)


def f_mul(weights: Tensor, values: Tensor, size) -> Tensor:
    """The last line of equation 1, with values [B, C, h, w], as a map [B, C, *size]."""
    out = weights @ values.flatten(2).transpose(1, 2)
    return out.transpose(1, 2).reshape(*values.shape[:2], *size)


def self_transformer(module, x: Tensor) -> Tensor:
    """Equation 3, with the dot product, divided by sqrt(d), for the similarity."""
    pooled = module.pool(x)
    q, k, v = module.key_conv(x), module.key_conv(pooled), module.value_conv(pooled)
    return x + module.out_conv(_all_to_all_scaled(module, q, k, v))


@in_float32
def _all_to_all_scaled(module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q_parts, k_parts = positions(q, module.mixtures), positions(k, module.mixtures)
    scores = torch.einsum('bnid,bnjd->bnij', q_parts, k_parts) / q_parts.shape[-1] ** 0.5
    return f_mul(f_mos(scores, mixture_weights(module, k)), v, q.shape[2:])


def scores_of(module, q: Tensor, k: Tensor) -> Tensor:
    """Similarity of q [..., d] and k [..., d]: equation 4, or those of non-local networks."""
    if module.similarity == 'euclidean':
        return -(q - k).square().sum(-1)
    return (q * k).sum(-1) / (q.shape[-1] ** 0.5 if module.similarity == 'embedded' else 1)


def grounding_transformer(module, fine: Tensor, coarse: Tensor) -> Tensor:
    """Equation 5; with a window, of every position on its own (section 3.3, locality-constrained)."""
    q, k, v = module.query_conv(fine), module.key_conv(coarse), module.value_conv(coarse)
    return module.out_conv((_all_to_all if module.window is None else _in_windows)(module, q, k, v))


@in_float32
def _all_to_all(module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    pi = mixture_weights(module, k)
    q_parts, k_parts = positions(q, module.mixtures), positions(k, module.mixtures)
    scores = scores_of(module, q_parts[:, :, :, None], k_parts[:, :, None])
    if module.similarity == 'dot':
        weights = (pi[:, :, None, None] * scores / scores.shape[-1]).sum(1)
    else:
        weights = f_mos(scores, pi)
    return f_mul(weights, v, q.shape[2:])


@in_float32
def _in_windows(module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    pi = mixture_weights(module, k)
    (batch, _, height, width), (rows, columns), half = q.shape, k.shape[2:], module.window // 2
    out = q.new_zeros(batch, v.shape[1], height, width)
    for y in range(height):
        for x in range(width):
            # the coarse cell in which the centre of the position lies
            row, column = int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)
            keys, values = [], []
            for i in range(row - half, row + half + 1):
                for j in range(column - half, column + half + 1):
                    inside = 0 <= i < rows and 0 <= j < columns
                    keys.append(k[:, :, i, j] if inside else torch.zeros_like(k[:, :, 0, 0]))
                    values.append(v[:, :, i, j] if inside else torch.zeros_like(v[:, :, 0, 0]))
            keys = torch.stack(keys, 2).reshape(batch, module.mixtures, -1, len(keys)).transpose(2, 3)
            query = q[:, :, y, x].reshape(batch, module.mixtures, 1, -1)
            scores = scores_of(module, query, keys)[:, :, None]
            if module.similarity == 'dot':
                weights = (pi[:, :, None, None] * scores / scores.shape[-1]).sum(1)
            else:
                weights = f_mos(scores, pi)
            out[:, :, y, x] = (weights @ torch.stack(values, 1))[:, 0]
    return out


def rendering_transformer(module, coarse: Tensor, fine: Tensor) -> Tensor:
    """Equation 6, with Q the coarse level, K and V the fine one."""
    w = module.weight_conv(fine.mean((2, 3))[:, :, None, None])
    q_att = coarse * w
    v_dow = module.value_convs(fine)
    return module.out_conv(module.query_conv(q_att) + v_dow)
