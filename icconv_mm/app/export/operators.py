"""Three custom operators of an exported program, and two made of standard operators.

The custom ones' results depend on values, but their shapes do not: a mask of the boxes that a non-maximum suppression
keeps, the scores that a soft one leaves, and the features of regions, each from its own level.
"""

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from icconv_mm.errors import MissingLibraryError

if tuple(int(part) for part in torch.__version__.split('+')[0].split('.')[:2]) < (2, 6):
    raise MissingLibraryError(f'export needs torch 2.6 or newer, got {torch.__version__}')

NONE = -1.0  # the score of an empty entry


@torch.library.custom_op('icconv_mm::export_nms_mask', mutates_args=())
def nms_mask(boxes: Tensor, scores: Tensor, iou_threshold: float, least: float) -> Tensor:
    """Returns 1 for each kept box of ``[B, N, 4]`` with a score in ``[B, N]`` above ``least``, else 0: ``[B, N]``."""
    from mmcv.ops import nms

    keep = torch.zeros_like(scores)
    for row, boxes_of_class, score in zip(keep, boxes, scores):
        (rows,) = torch.nonzero(score > least, as_tuple=True)
        if len(rows):
            row[rows[nms(boxes_of_class[rows], score[rows], iou_threshold)[1]]] = 1
    return keep


@nms_mask.register_fake
def _(boxes, scores, iou_threshold, least):
    return torch.empty_like(scores)


@torch.library.custom_op('icconv_mm::export_soft_nms', mutates_args=())
def soft_nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, sigma: float, gaussian: bool, min_score: float
) -> Tensor:
    """Returns what mmcv's ``soft_nms`` leaves of scores ``[B, N]`` of ``[B, N, 4]``; :data:`NONE` where it drops one.

    ``min_score`` is above 0; scores below 0 are of empty entries.
    """
    from mmcv.ops import soft_nms as mmcv_soft_nms

    left = torch.full_like(scores, NONE)
    for row, boxes_of_class, score in zip(left, boxes, scores):
        (rows,) = torch.nonzero(score >= 0, as_tuple=True)
        if len(rows):
            method = 'gaussian' if gaussian else 'linear'
            kept, places = mmcv_soft_nms(boxes_of_class[rows], score[rows], iou_threshold, sigma, min_score, method)
            row[rows[places]] = kept[:, -1]
    return left


@soft_nms.register_fake
def _(boxes, scores, iou_threshold, sigma, gaussian, min_score):
    return torch.empty_like(scores)


@torch.library.custom_op('icconv_mm::export_roi_features', mutates_args=())
def roi_features(
    levels: list[Tensor], rois: Tensor, level: Tensor, scales: list[float], size: list[int], samples: int, aligned: bool
) -> Tensor:
    """Returns features ``[n, C, *size]`` of regions ``[n, 5]`` (image, x1, y1, x2, y2), each from ``level`` ``[n]``."""
    from mmcv.ops import roi_align

    out = levels[0].new_zeros(len(rois), levels[0].shape[1], *size)
    for number, (features, scale) in enumerate(zip(levels, scales)):
        (rows,) = torch.nonzero(level == number, as_tuple=True)
        if len(rows):
            out[rows] = roi_align(features.contiguous(), rois[rows], tuple(size), scale, samples, 'avg', aligned)
    return out


@roi_features.register_fake
def _(levels, rois, level, scales, size, samples, aligned):
    return levels[0].new_empty(rois.shape[0], levels[0].shape[1], *size)


# --- selection, in tensors of fixed shapes


def gather_rows(values: Tensor, indices: Tensor) -> Tensor:
    """Gathers rows: ``[B, N, k]`` at indices ``[B, n]`` -> ``[B, n, k]``."""
    return values.gather(1, indices[..., None].expand(-1, -1, values.shape[-1]))


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the highest ``count`` of scores ``[B, N]`` and their indices, padded with :data:`NONE` at index 0."""
    filled = F.pad(scores, (0, count), value=NONE)
    values, indices = filled.topk(count, 1)
    return values, torch.where(values > NONE, indices, 0)


# --- pooling by operators that every runtime has, of maps of any size


@contextmanager
def any_remainder() -> Iterator[None]:
    """Makes programs that are captured in it pool maps of odd and of even sizes.

    torch 2.11 finds the size of a pooled map with the remainder (``div_rtn``; 2.13 does not), so that a program of an
    example of even size would refuse odd ones.
    """
    meta, name = torch._meta_registrations, 'div_rtn'
    before = getattr(meta, name, None)
    setattr(meta, name, operator.floordiv)
    try:
        yield
    finally:
        setattr(meta, name, before)


def adaptive_mean(x: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Computes ``F.adaptive_avg_pool2d`` of maps of any size by products with two matrices that depend on the size.

    ``[N, C, H, W]`` -> ``[N, C, h, w]``.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if (height, width) == (1, 1):
        return x.mean((2, 3), keepdim=True)
    rows, columns = (_window_means(side, count, x) for side, count in ((x.shape[2], height), (x.shape[3], width)))
    return rows @ x @ columns.t()


def _window_means(side: int, count: int, like: Tensor) -> Tensor:
    """Returns ``[count, side]``: row i averages the entries floor(i * side / count) to ceil((i + 1) * side / count)."""
    entry, i = torch.arange(side, device=like.device), torch.arange(count, device=like.device)[:, None]
    first, end = i * side // count, ((i + 1) * side + count - 1) // count
    inside = torch.logical_and(entry >= first, entry < end).to(like.dtype)  # coremltools has no aten.__and__
    return inside / inside.sum(1, keepdim=True)
