"""RoIAlign on a CPU as weighted sums of vectors.

On a CPU the operators of mmcv and torchvision add one number after the other. Here a row of a table holds all channels
of a pixel, and a bin is the weighted sum of the 4 * samples^2 rows around its samples, by ``embedding_bag``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.ops import RoIAlign
from mmdet.models.roi_heads import SingleRoIExtractor
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding_bag

from icconv_mm.layers.memory_format import leaving
from icconv_mm.registry import MODELS
from icconv_mm.torch_private import is_compiling, is_jit_or_onnx_tracing


@MODELS.register_module()
class CPURoIExtractor(SingleRoIExtractor):
    """mmdet's ``SingleRoIExtractor``, faster on a CPU if the number of samples is fixed (``sampling_ratio`` > 0).

    It has the arguments and results of its base, which computes what is not float32 on a CPU.
    """

    def forward(self, feats: Sequence[Tensor], rois: Tensor, roi_scale_factor: float | None = None) -> Tensor:
        """Returns the features [n, C, h, w] of regions.

        Args:
            feats: Maps [B, C, H, W] of the levels.
            rois: Number of the image, and corners in pixels of the image, [n, 5].
            roi_scale_factor: Factor by which regions grow about their centers.
        """
        if roi_scale_factor is not None or not self._is_supported(feats):
            return super().forward(feats, rois, roi_scale_factor)
        layer = self.roi_layers[0]
        scales = [layer.spatial_scale for layer in self.roi_layers]
        level = self.map_roi_levels(rois, len(feats)).clamp(min=0)  # NaN has the least of all levels
        return _roi_align(feats, rois, level, scales, layer.output_size, layer.sampling_ratio)

    def _is_supported(self, feats: Sequence[Tensor]) -> bool:
        if is_compiling() or is_jit_or_onnx_tracing() or len(feats) > len(self.roi_layers):
            return False
        if any(feat.device.type != 'cpu' or feat.dtype != torch.float32 for feat in feats):
            return False
        return all(_is_fixed_average(layer) for layer in self.roi_layers)


def _is_fixed_average(layer: nn.Module) -> bool:
    return isinstance(layer, RoIAlign) and layer.sampling_ratio > 0 and layer.aligned and layer.pool_mode == 'avg'


def _roi_align(
    feats: Sequence[Tensor], rois: Tensor, level: Tensor, scales: Sequence[float], size: Sequence[int], samples: int
) -> Tensor:
    """Returns the features of regions [n, C, h, w], each from its ``level`` [n]; levels have ``scales``."""
    channels, (rows, columns) = feats[0].shape[1], size
    table = torch.cat([feat.permute(0, 2, 3, 1).reshape(-1, channels) for feat in feats])
    shapes = torch.tensor([feat.shape[-2:] for feat in feats])
    pixels = torch.tensor([feat.shape[0] * feat.shape[2] * feat.shape[3] for feat in feats])
    heights, widths = shapes[level].unbind(1)
    x1, y1, x2, y2 = (rois[:, 1:] * rois.new_tensor(scales)[level, None] - 0.5).unbind(1)
    below, y_weights = _neighbours(y1, y2, heights, rows, samples)
    beside, x_weights = _neighbours(x1, x2, widths, columns, samples)
    first = (pixels.cumsum(0) - pixels)[level] + rois[:, 0].long() * heights * widths
    below = first[:, None, None] + below * widths[:, None, None]
    indices = below[:, :, None, :, None] + beside[:, None, :, None, :]
    weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
    bins = len(rois) * rows * columns
    around = (2 * samples) ** 2
    output = _WeightedSums.apply(table, indices.reshape(bins, around).int(), weights.reshape(bins, around))
    return leaving(output.view(-1, rows, columns, channels).permute(0, 3, 1, 2), feats[0])


def _neighbours(start: Tensor, end: Tensor, cells: Tensor, bins: int, samples: int) -> tuple[Tensor, Tensor]:
    """Returns the two cells around each sample of a bin along an axis, and their weights, both [n, bins, 2 * samples].

    Args:
        start: First coordinate of each region in cells, [n].
        end: Last coordinate, [n].
        cells: Length of the axis, [n].
        bins: Bins of a region.
        samples: Samples of a bin.
    """
    bin_length = ((end - start) / bins)[:, None, None]
    middles = (torch.arange(samples) + 0.5) / samples
    positions = start[:, None, None] + torch.arange(bins)[:, None] * bin_length + middles * bin_length
    last = (cells - 1)[:, None, None]
    is_inside = (positions >= -1) & (positions <= last + 1)
    positions = torch.where(is_inside, positions, 0).clamp(min=0).minimum(last)
    low = positions.floor()
    share = positions - low
    weight = is_inside / samples
    cells = torch.stack([low, (low + 1).minimum(last)], -1).long()
    weights = torch.stack([(1 - share) * weight, share * weight], -1)
    return cells.flatten(2), weights.flatten(2)


class _WeightedSums(torch.autograd.Function):
    """Weighted sums of rows of a table; torch's own gradient of ``embedding_bag`` takes twice as long."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(indices, weights)
        ctx.rows = len(table)
        return embedding_bag(indices, table, per_sample_weights=weights, mode='sum')

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Sums, for each row of the table, the gradients of the sums that it is in."""
        indices, weights = ctx.saved_tensors
        rows, order = indices.flatten().sort(stable=True)
        offsets = torch.searchsorted(rows, torch.arange(ctx.rows, dtype=rows.dtype))
        sums = order.div(indices.shape[1], rounding_mode='floor')
        grad_table = embedding_bag(
            sums, grad.contiguous(), offsets, per_sample_weights=weights.flatten()[order], mode='sum'
        )
        return grad_table, None, None
