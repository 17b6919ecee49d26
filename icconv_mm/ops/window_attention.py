"""Attention of a fine map to windows of a coarse one, in memory that is linear in the pixels."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.ops.dispatch import Arguments
from icconv_mm.ops.library import checked_call, define, differentiable_once
from icconv_mm.ops.tensors import rows_of_a_block, widened

SIMILARITIES = ('euclidean', 'embedded', 'dot')


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, mix: Tensor, window: int, similarity: str = 'euclidean'
) -> Tensor:
    """Attention of every position of ``q`` to a window of ``k`` and ``v`` around it, once differentiable.

    A query attends to the square of coarse cells around its own position; cells beyond the border are zeros, in keys
    and values. A position of the fine map belongs to the coarse cell that contains its centre; the sizes need not be
    multiples of each other. The channels of queries and keys are divided into N parts with a softmax each, as in
    :func:`icconv_mm.ops.mixture_attention`.

    Rows of queries are computed block by block, offset by offset, and again in the backward pass: neither N_q x N_k
    weights nor the unfolded windows, window^2 times the size of the queries, are stored. Half precision is computed in
    float32; the result has the dtype of ``v``.

    Args:
        q: Queries ``[B, C, H, W]``.
        k: Keys ``[B, C, h, w]``.
        v: Values ``[B, D, h, w]``.
        mix: Weight of each part, ``[B, N]``; N divides C.
        window: Side of the window, odd and no larger than the coarse map.
        similarity: 'euclidean', softmax of ``-|q - k|^2``; 'embedded', softmax of ``q . k / sqrt(C / N)``; 'dot',
            ``q . k / window^2`` without a softmax.

    Returns:
        ``[B, D, H, W]``.

    Raises:
        ValueError: If shapes do not fit or the window is even or too large; the message has the values got.

    Source: Feature Pyramid Transformer, https://arxiv.org/abs/2007.09451, section 3.3 (locality-constrained grounding
    transformer).

    Example:
        >>> q, k, v = torch.randn(1, 8, 32, 32), torch.randn(1, 8, 16, 16), torch.randn(1, 4, 16, 16)
        >>> window_attention(q, k, v, mix=torch.tensor([[0.3, 0.7]]), window=5).shape
        torch.Size([1, 4, 32, 32])
    """
    return checked_call(_forward, reference, _check_window, q, k, v, mix, window, similarity)


def _check_window(q, k, v, mix, window, similarity):
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise ValueError(
            f'expected q [B, C, H, W], k [B, C, h, w] and v [B, D, h, w], got {list(q.shape)}, {list(k.shape)} and '
            f'{list(v.shape)}'
        )
    if q.shape[:2] != k.shape[:2] or v.shape[0] != k.shape[0] or v.shape[2:] != k.shape[2:]:
        raise ValueError(f'q {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)} do not fit')
    if mix.dim() != 2 or mix.shape[0] != q.shape[0] or q.shape[1] % mix.shape[1]:
        raise ValueError(f'mix {list(mix.shape)} must be [B, N] with B = {q.shape[0]} and N a divisor of {q.shape[1]}')
    check_settings(similarity, window)
    if window > min(k.shape[2:]):
        raise ValueError(f'a window of {window} is larger than the coarse map of {k.shape[2]} x {k.shape[3]}')


def check_settings(similarity: str, window: int) -> None:
    """Raises ValueError unless there is such a similarity and the side of the window is odd and positive."""
    if similarity not in SIMILARITIES:
        raise ValueError(f'similarity must be one of {", ".join(SIMILARITIES)}, got {similarity!r}')
    if window < 1 or window % 2 == 0:
        raise ValueError(f'the side of a window must be odd and positive, got {window}')


# --- by the reference, on unfolded windows


def cells_of(fine: int, coarse: int, device: torch.device) -> Tensor:
    """Returns for every fine position along an axis the coarse cell that contains its centre."""
    return (2 * torch.arange(fine, device=device) + 1) * coarse // (2 * fine)


def scale_of(channels: int, parts: int, window: int, similarity: str) -> float:
    """Returns the factor of the similarities of a query and the keys of its window."""
    return {'euclidean': 1.0, 'embedded': (channels / parts) ** -0.5, 'dot': window**-2}[similarity]


def reference(q: Tensor, k: Tensor, v: Tensor, mix: Tensor, window: int, similarity: str) -> Tensor:
    """Computes the attention for traces and ONNX exports; arguments and result as in ``window_attention``."""
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


# --- in blocks


class _Block(NamedTuple):
    """A block of rows of the fine map, and its cells in the coarse map, padded by half a window."""

    rows: slice  # of the fine map
    cells: tuple[Tensor, Tensor] | None  # rows and columns of the coarse map; None where the sizes are equal
    width: int
    side: int

    def offsets(self) -> Iterator[tuple]:
        """Yields the cells of the padded coarse map at each offset: rows and columns, slices or indices."""
        for down in range(self.side):
            for right in range(self.side):
                if self.cells is None:
                    start, stop = self.rows.start, self.rows.stop
                    yield slice(start + down, stop + down), slice(right, right + self.width)
                else:
                    yield self.cells[0][self.rows] + down, self.cells[1] + right


def _blocks(q: Tensor, k: Tensor, side: int) -> Iterator[_Block]:
    (_, channels, height, width), coarse = q.shape, tuple(k.shape[2:])
    cells = None
    if coarse != (height, width):
        cells = cells_of(height, coarse[0], q.device), cells_of(width, coarse[1], q.device)
    # besides the weights, a few maps of the block's queries and keys are in memory
    count = max(1, rows_of_a_block(width * (channels + side**2), 4, q) if height * width else height)
    for start in range(0, height, count):
        yield _Block(slice(start, min(start + count, height)), cells, width, side)


def _take(padded: Tensor, rows, columns) -> Tensor:
    """Returns coarse cells [C, rows, columns] of a padded map [C, h, w]."""
    return padded[:, rows][:, :, columns]


def _add(padded: Tensor, rows, columns, values: Tensor) -> None:
    """Adds values to the cells that :func:`_take` reads: its transpose."""
    if isinstance(rows, slice):
        padded[:, rows, columns] += values
    else:
        by_column = values.new_zeros((*values.shape[:2], padded.shape[2])).index_add_(2, columns, values)
        padded.index_add_(1, rows, by_column)


def _by_part(x: Tensor, parts: int) -> Tensor:
    """[C, ...] -> [N, C / N, ...]."""
    return x.unflatten(0, (parts, -1))


def _part_weights(query, keys, parts, block, similarity):
    """Returns the weights of each part [window^2, N, rows, W] before mixing, for queries [C, rows, W] of one image."""
    weights = query.new_empty((block.side**2, parts, *query.shape[1:]))
    for offset, cells in enumerate(block.offsets()):
        key = _take(keys, *cells)
        if similarity == 'euclidean':
            torch.sum(_by_part((query - key).square_(), parts), 1, out=weights[offset]).neg_()
        else:
            torch.sum(_by_part(query * key, parts), 1, out=weights[offset])
    weights.mul_(scale_of(query.shape[0], parts, block.side, similarity))
    return weights if similarity == 'dot' else weights.softmax(0)


def _forward_in_blocks(q, k, v, mix, window, similarity):
    with widened(q, k, v, mix) as (q_, k_, v_, mix_):
        k_, v_ = (F.pad(tensor, [window // 2] * 4) for tensor in (k_, v_))
        out = v_.new_zeros((q.shape[0], v.shape[1], *q.shape[2:]))
        for image in range(q.shape[0]):
            for block in _blocks(q_, k, window):
                weights = _part_weights(q_[image, :, block.rows], k_[image], mix.shape[1], block, similarity)
                mixed = torch.tensordot(mix_[image], weights, ([0], [1]))
                for offset, cells in enumerate(block.offsets()):
                    out[image, :, block.rows].addcmul_(_take(v_[image], *cells), mixed[offset])
        return out.to(v.dtype)


def _backward_in_blocks(grad, q, k, v, mix, window, similarity):
    parts, border = mix.shape[1], window // 2
    with widened(grad, q, k, v, mix) as (grad_, q_, k_, v_, mix_):
        k_, v_ = (F.pad(tensor, [border] * 4) for tensor in (k_, v_))
        to_q, to_k, to_v, to_mix = (torch.zeros_like(tensor) for tensor in (q_, k_, v_, mix_))
        for image in range(q.shape[0]):
            for block in _blocks(q_, k, window):
                query, outer = q_[image, :, block.rows], grad_[image, :, block.rows]
                weights = _part_weights(query, k_[image], parts, block, similarity)
                mixed = torch.tensordot(mix_[image], weights, ([0], [1]))
                to_mixed = torch.empty_like(mixed)
                for offset, cells in enumerate(block.offsets()):
                    torch.sum(outer * _take(v_[image], *cells), 0, out=to_mixed[offset])
                    _add(to_v[image], *cells, outer * mixed[offset])
                to_mix[image] += (weights * to_mixed[:, None]).sum((0, 2, 3))
                to_logits = to_mixed[:, None] * mix_[image][:, None, None]
                if similarity != 'dot':  # otherwise the logits are the weights
                    to_logits = weights * (to_logits - (weights * to_logits).sum(0))
                to_logits.mul_(scale_of(q.shape[1], parts, window, similarity))
                for offset, cells in enumerate(block.offsets()):
                    _add_logits(
                        to_q[image, :, block.rows], to_k[image], query, k_[image], to_logits[offset], cells, similarity
                    )
        to_k, to_v = (F.pad(tensor, [-border] * 4) for tensor in (to_k, to_v))
        return tuple(t.to(of.dtype) for t, of in zip((to_q, to_k, to_v, to_mix), (q, k, v, mix)))


def _add_logits(to_q, to_k, query, keys, to_logits, cells, similarity):
    """Adds the part of the logits of one offset [N, rows, W] to the gradients of queries and (padded) keys."""
    parts, key = to_logits.shape[0], _take(keys, *cells)
    share = to_logits[:, None]
    if similarity == 'euclidean':
        change = (_by_part(query - key, parts) * (2 * share)).flatten(0, 1)
        to_q -= change
        _add(to_k, *cells, change)
    else:
        to_q += (_by_part(key, parts) * share).flatten(0, 1)
        _add(to_k, *cells, (_by_part(query, parts) * share).flatten(0, 1))


def _flops(q, window, channels):
    """Returns the multiplications and additions of so many channels of every cell of a window, for all queries."""
    return 2 * q[0] * q[2] * q[3] * window**2 * channels


_backward = define(
    'window_attention_backward',
    '(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor mix, int window, str similarity) '
    '-> (Tensor, Tensor, Tensor, Tensor)',
    _backward_in_blocks,
    fake=lambda grad, *args: tuple(tensor.new_empty(tensor.shape) for tensor in args[:4]),
    flops=lambda grad, q, k, v, mix, window, *_, **__: _flops(q, window, 3 * q[1] + 2 * v[1]),
)
_forward = define(
    'window_attention',
    '(Tensor q, Tensor k, Tensor v, Tensor mix, int window, str similarity) -> Tensor',
    _forward_in_blocks,
    arguments=Arguments(window_attention, _check_window),
    fake=lambda q, k, v, *_: v.new_empty((q.shape[0], v.shape[1], *q.shape[2:])),
    standard=reference,
    autograd=differentiable_once(_backward, 4),
    flops=lambda q, k, v, mix, window, *_, **__: _flops(q, window, q[1] + v[1]),
)
