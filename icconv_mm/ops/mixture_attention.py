"""Attention with a mixture of softmaxes, in memory that is linear in the positions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.dispatch import Arguments
from icconv_mm.ops.library import checked_call, define, differentiable_once
from icconv_mm.ops.tensors import computed_dtype, in_blocks, widened


def mixture_attention(
    q: Tensor, k: Tensor, v: Tensor, mix: Tensor, bias: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """Attention with a mixture of softmaxes, once differentiable.

    The channels of queries and keys are divided into N parts, each part has a softmax of its own over the keys, and the
    attention weights are the mixture::

        A_ij = sum_n mix_n softmax_j(scale q_in . k_jn + bias_jn),        out_i = sum_j A_ij v_j

    A is N_q x N_k, at 800 x 1088 pixels 3 GB for each softmax of the finest level alone. It is never stored: blocks of
    queries are computed one by one in workspace memory of fixed size, and again in the backward pass, which needs only
    the inputs. Mixing the weights first costs one product with the values; an attention per softmax would cost N.

    Half precision is computed in float32; the result has the dtype of ``v``. Autocast does not change the dtypes.

    Args:
        q: Queries ``[B, N, d, N_q]``: N parts of d channels.
        k: Keys ``[B, N, d, N_k]``.
        v: Values ``[B, C, N_k]``, of all parts.
        mix: Weight of each part's softmax, ``[B, N]``.
        bias: ``[B, N, N_k]``, added to the logits of each key, or None.
        scale: Factor of the dot products.

    Returns:
        ``[B, C, N_q]``.

    Raises:
        ValueError: If shapes do not fit, or there is no key; the message has the shapes got.

    Source: Feature Pyramid Transformer, https://arxiv.org/abs/2007.09451, equations 2 and 3.

    Example:
        >>> q, k, v = torch.randn(1, 2, 8, 100), torch.randn(1, 2, 8, 25), torch.randn(1, 16, 25)
        >>> mixture_attention(q, k, v, mix=torch.tensor([[0.3, 0.7]]), scale=8**-0.5).shape
        torch.Size([1, 16, 100])
    """
    return checked_call(_forward, reference, _check_mixture, q, k, v, mix, bias, scale)


def _check_mixture(q, k, v, mix, bias, scale):
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 3:
        raise ValueError(
            f'expected q [B, N, d, N_q], k [B, N, d, N_k] and v [B, C, N_k], got {list(q.shape)}, {list(k.shape)} and '
            f'{list(v.shape)}'
        )
    batch, parts, _, keys = k.shape
    if q.shape[:3] != k.shape[:3]:
        raise ValueError(f'q {list(q.shape)} and k {list(k.shape)} differ in batch, parts or channels')
    if v.shape[0] != batch or v.shape[2] != keys:
        raise ValueError(f'v {list(v.shape)} does not fit k {list(k.shape)}: expected [{batch}, C, {keys}]')
    if tuple(mix.shape) != (batch, parts):
        raise ValueError(f'mix must have the shape {[batch, parts]}, got {list(mix.shape)}')
    if bias is not None and tuple(bias.shape) != (batch, parts, keys):
        raise ValueError(f'bias must have the shape {[batch, parts, keys]}, got {list(bias.shape)}')
    if keys == 0:
        raise ValueError(f'attention needs at least one key, got k {list(k.shape)}')


# --- by the reference, in quadratic memory


def reference(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, bias: Tensor | None = None, scale: float = 1.0) -> Tensor:
    """Computes the attention for traces and ONNX exports; arguments and result as in ``mixture_attention``."""
    logits = scale * q.transpose(-2, -1) @ k
    if bias is not None:
        logits = logits + bias[:, :, None]
    weights = (mix[..., None, None] * F.softmax(logits, -1)).sum(1)
    return v @ weights.transpose(-2, -1)


# --- in blocks


def _softmax_weights(q, k, bias, scale, scores, out):
    """Writes softmax(scale q^T k + bias) [rows, N_k] of one part to ``out``; ``scores`` is workspace memory."""
    if bias is None:
        torch.mm(q.t(), k, out=scores).mul_(scale)
    else:
        torch.addmm(bias, q.t(), k, alpha=scale, out=scores)
    return torch.softmax(scores, -1, out=out)


def _forward_in_blocks(q, k, v, mix, bias, scale):
    with widened(q, k, v, mix, bias) as (q_, k_, v_, mix_, bias_):
        out = v_.new_empty((q.shape[0], v.shape[1], q.shape[3]))
        for image in range(q.shape[0]):
            for rows, (scores, weights, mixed) in in_blocks(q.shape[3], k.shape[3], 3, like=v_):
                mixed.zero_()
                for part in range(q.shape[1]):
                    part_bias = None if bias is None else bias_[image, part]
                    _softmax_weights(q_[image, part, :, rows], k_[image, part], part_bias, scale, scores, weights)
                    mixed.addcmul_(weights, mix_[image, part])
                torch.mm(v_[image], mixed.t(), out=out[image, :, rows])
        return out.to(v.dtype)


def _backward_in_blocks(grad, q, k, v, mix, bias, scale):
    softmax_backward = torch.ops.aten._softmax_backward_data.out
    with widened(grad, q, k, v, mix, bias) as (grad_, q_, k_, v_, mix_, bias_):
        to_q, to_k, to_v, to_mix = (tensor.new_zeros(tensor.shape) for tensor in (q_, k_, v_, mix_))
        to_bias = k_.new_zeros((*k.shape[:2], k.shape[3]))
        for image in range(q.shape[0]):
            for rows, (scores, weights, outer, mixed) in in_blocks(q.shape[3], k.shape[3], 4, like=v_):
                torch.mm(grad_[image, :, rows].t(), v_[image], out=outer)  # gradient of the mixed weights
                mixed.zero_()
                for part in range(q.shape[1]):
                    share = mix_[image, part]
                    part_q, part_k = q_[image, part, :, rows], k_[image, part]
                    part_bias = None if bias is None else bias_[image, part]
                    _softmax_weights(part_q, part_k, part_bias, scale, scores, weights)
                    mixed.addcmul_(weights, share)
                    to_mix[image, part] += torch.dot(weights.flatten(), outer.flatten())
                    softmax_backward(outer, weights, -1, weights.dtype, grad_input=scores)
                    # gradient of the logits without the factor `share`, which the small tensors get
                    torch.mm(part_k, scores.t(), out=to_q[image, part, :, rows])
                    to_k[image, part].addmm_(part_q * share, scores, alpha=scale)
                    if bias is not None:
                        to_bias[image, part].addcmul_(scores.sum(0), share)
                to_v[image].addmm_(grad_[image, :, rows], mixed)
        to_q.mul_(scale * mix_[..., None, None])
        grads = zip((to_q, to_k, to_v, to_mix, to_bias), (q, k, v, mix, to_bias if bias is None else bias))
        return tuple(grad.to(of.dtype) for grad, of in grads)


def _backward_fake(grad, q, k, v, mix, bias, scale):
    to_bias = k.new_empty((*k.shape[:2], k.shape[3]), dtype=computed_dtype(k.dtype) if bias is None else bias.dtype)
    return (*(tensor.new_empty(tensor.shape) for tensor in (q, k, v, mix)), to_bias)


_backward = define(
    'mixture_attention_backward',
    '(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor mix, Tensor? bias, float scale) '
    '-> (Tensor, Tensor, Tensor, Tensor, Tensor)',
    _backward_in_blocks,
    fake=_backward_fake,
    flops=lambda grad, q, k, v, *_, **__: 2 * q[0] * q[3] * k[3] * (3 * q[1] * q[2] + 2 * v[1]),
)
_forward = define(
    'mixture_attention',
    '(Tensor q, Tensor k, Tensor v, Tensor mix, Tensor? bias, float scale) -> Tensor',
    _forward_in_blocks,
    arguments=Arguments(mixture_attention, _check_mixture),
    fake=lambda q, k, v, *_: v.new_empty((q.shape[0], v.shape[1], q.shape[3])),
    standard=reference,
    autograd=differentiable_once(_backward, 5),
    flops=lambda q, k, v, *_, **__: 2 * q[0] * q[3] * k[3] * (q[1] * q[2] + v[1]),  # of the two products
)
