"""Merge the maps of several stages, of the mirrored image and of several test scales into one set.

Scales are added one at a time, so only one scale's features and maps are alive at any moment. Semantics of
mmpose 0.x: heatmaps are averaged over stages, then over image and mirror image, then over scales; tags are taken from
one scale only (1, or the only one) because tags of different scales are not comparable; the tags of image and mirror
image stay beside each other in the last dimension.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from icconv_mm.errors import InputError


def unflip(maps: Tensor, flip_indices: Sequence[int] | None) -> Tensor:
    """Bring maps [B, C, H, W] of the mirrored image back: reverse the columns, swap left and right keypoints.

    ``flip_indices`` names the counterpart of every channel; None swaps no channels (one tag map for all keypoints).
    """
    maps = maps.flip(-1)
    return maps if flip_indices is None else maps[:, list(flip_indices)]


def resize(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Bilinear resize of [B, C, H, W] to ``size`` (height, width); a map of that size already is returned as it is."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return interpolate(maps, size=tuple(size), mode='bilinear', align_corners=align_corners)


class MapAggregator:
    """Running average of heatmaps over test scales, and the tags of one of them.

    Args:
        base_size: ``(width, height)`` of the input at scale 1. All maps are resized to it. None keeps the resolution
            of the network: maps are then resized to the last stage of the first scale added (add the largest first).
        align_corners: Whether bilinear resizing aligns the corners of the grids.

    Example::

        aggregator = MapAggregator(base_size=(640, 512))
        for image in scales:
            heatmaps, tags = network(image)
            aggregator.add([heatmaps], [tags])
        heatmaps, tags = aggregator.result()   # [B, K, 512, 640], [B, K, 512, 640, 1]
    """

    def __init__(self, base_size: tuple[int, int] | None = None, align_corners: bool = False):
        self.size = None if base_size is None else (base_size[1], base_size[0])
        self.project = base_size is not None
        self.align_corners = align_corners
        self._sum: Tensor | None = None
        self._count = 0
        self._tags: Tensor | None = None

    def add(
        self,
        heatmaps: Sequence[Tensor],
        tags: Sequence[Tensor] | None,
        flipped_heatmaps: Sequence[Tensor] | None = None,
        flipped_tags: Sequence[Tensor] | None = None,
        flip_indices: Sequence[int] | None = None,
    ) -> None:
        """Add one scale.

        Args:
            heatmaps: One [B, K, h, w] per stage of the network, last stage last.
            tags: One [B, K, h, w] (or [B, 1, h, w], shared by all keypoints) per stage that predicts tags; None if the
                tags of this scale are not to be used.
            flipped_heatmaps, flipped_tags: Heatmaps and tags of the mirrored image, as the network gives them.
            flip_indices: Counterpart of every keypoint; required with flipped maps.
        """
        stage_size = self.size if self.project else tuple(heatmaps[-1].shape[-2:])
        self.size = self.size or stage_size
        merged = self._average(heatmaps, stage_size)
        if flipped_heatmaps is not None:
            if flip_indices is None:
                raise InputError('merging maps of the mirrored image needs flip_indices (which keypoint becomes which)')
            mirrored = [unflip(maps, flip_indices) for maps in flipped_heatmaps]
            merged = (merged + self._average(mirrored, stage_size)) * 0.5
        merged = resize(merged, self.size, self.align_corners)
        self._sum = merged if self._sum is None else self._sum + merged
        self._count += 1
        if tags is not None:
            mirrored = [unflip(maps, flip_indices if maps.shape[1] > 1 else None) for maps in flipped_tags or ()]
            self._tags = [resize(maps, self.size, self.align_corners) for maps in (*tags, *mirrored)]

    def result(self) -> tuple[Tensor, Tensor]:
        """Heatmaps [B, K, H, W] and tags [B, K, H, W, L], L being 1, or 2 with the mirrored image.

        The tags are a view whose last dimension is the slowest in memory.
        """
        if self._tags is None:
            raise RuntimeError(f'no scale {"" if self._sum is None else "with tags "}was added')
        heatmaps = self._sum if self._count == 1 else self._sum / self._count
        tags = [maps.expand(-1, heatmaps.shape[1], -1, -1) for maps in self._tags]
        if len(tags) == 1:
            return heatmaps, tags[0].unsqueeze(-1)
        return heatmaps, torch.stack(tags).permute(1, 2, 3, 4, 0)

    def _average(self, stages: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        resized = [resize(maps, size, self.align_corners) for maps in stages]
        return resized[0] if len(resized) == 1 else sum(resized) / len(resized)


def tag_scale(scales: Sequence[float]) -> float:
    """The scale whose tags are used: 1 if it is among ``scales``, else the one closest to it (as a ratio)."""
    return min(scales, key=lambda scale: max(scale, 1 / scale))
