"""Multi-scale testing: sizes and regions of the image pyramid, and the merging of its maps.

Sizes are ``(width, height)`` in pixels. All levels of a pyramid show exactly the same region of the image, so their
heatmaps align after a plain resize. Scales are added one at a time, so only one scale's features and maps are alive at
any moment. Semantics of mmpose 0.x: heatmaps are averaged over stages, then over image and flipped image, then over
scales; tags are taken from one scale only (1, or the only one) because tags of different scales are not comparable; the
tags of image and flipped image are kept side by side in the last dimension.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from icconv_mm.errors import InputError
from icconv_mm_runtime.images import pyramid_layout

_MAX_SIDE = 32766  # cv2.warpAffine addresses input and output with 16-bit coordinates


@dataclass(frozen=True)
class Pyramid:
    """Sizes to which an image is resized, and the region of the image that they show."""

    sizes: tuple[tuple[int, int], ...]  # one per test scale, in the order of the scales
    base_size: tuple[int, int]  # at scale 1; predictions are projected to it
    center: tuple[float, float]  # (x, y) of the region in the image
    extent: tuple[float, float]  # (width, height) of the region; exceeds the image where a side was rounded up


def check_source(image_size: tuple[int, int]) -> None:
    """Raises InputError if an image [width, height] has no pixels, or a side too large for warping."""
    width, height = image_size
    if width < 1 or height < 1:
        raise InputError(f'an image of {width} x {height} pixels has no content')
    if max(width, height) > _MAX_SIDE:
        raise InputError(
            f'an image of {width} x {height} pixels is too large: a side has more than {_MAX_SIDE}; shrink it first'
        )


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Returns the test scales in the order in which they run, largest first.

    Raises:
        InputError: If the list is empty, or a scale is not a positive finite number or occurs twice.
    """
    if isinstance(scales, str | bytes) or not isinstance(scales, Sequence):
        raise InputError(f'test scales must be a list of numbers, got {scales!r}')
    if len(scales) == 0:
        raise InputError('the list of test scales is empty; give at least one, e.g. scales=[1]')
    for scale in scales:
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not (0 < scale < math.inf):
            raise InputError(f'every test scale must be a positive number, got {scale!r} in {list(scales)}')
    if len(set(scales)) != len(scales):
        raise InputError(f'a test scale occurs twice in {list(scales)}; its heatmaps would count twice')
    return tuple(sorted(scales, reverse=True))


def image_pyramid(
    image_size: tuple[int, int],
    input_size: tuple[int, int],
    scales: Sequence[float] = (1,),
    size_divisor: int = 64,
    stride: int = 32,
) -> Pyramid:
    """Computes the pyramid of one image.

    The short side becomes ``min(scales) x input_size`` rounded up to ``size_divisor``, the long side keeps the ratio
    and is rounded up likewise; the other levels are multiples of that smallest one, so all levels share one region.
    This is the rule of mmpose 0.x (``_get_multi_scale_size``), with one addition: a level whose side is no multiple of
    the network's ``stride`` (possible for lists such as [1, 0.75]) is rounded to the nearest multiple, because the
    network would pad it and its heatmaps would no longer align with the others.

    Args:
        image_size: ``(width, height)`` of the image.
        input_size: ``(width, height)`` that the network was trained on.
        scales: Positive numbers without repetition.
        size_divisor: The sides of the smallest level are rounded up to its multiples.
        stride: Largest stride of the network.

    Raises:
        InputError: If the scales are unusable (see :func:`check_scales`), a side of the image is empty or exceeds
            32766 pixels, or the image is so long and thin that a level would.
    """
    scales = check_scales(scales)
    check_source(image_size)
    pyramid = Pyramid(*pyramid_layout(image_size, input_size, scales, size_divisor, stride))
    if max(max(size) for size in (*pyramid.sizes, pyramid.base_size)) > _MAX_SIDE:
        raise InputError(
            f'an image of {image_size[0]} x {image_size[1]} pixels is too long and thin: at scales {list(scales)} and '
            f'input size {input_size} its sides become {list(pyramid.sizes)}, more than {_MAX_SIDE}'
        )
    return pyramid


def unflip(maps: Tensor, flip_indices: Sequence[int] | None) -> Tensor:
    """Maps [B, C, H, W] of the flipped image back: reverses the columns, and swaps left and right keypoints.

    ``flip_indices`` names the counterpart of every channel; None swaps no channels (one tag map for all keypoints).
    """
    maps = maps.flip(-1)
    if flip_indices is None:
        return maps
    return torch.cat([maps[:, i : i + 1] for i in flip_indices], 1)  # an index becomes a GatherND, which ncnn lacks


def resize(maps: Tensor, shape: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Resizes [B, C, H, W] to ``shape`` (height, width) bilinearly; returns a map that has that shape as it is."""
    if tuple(maps.shape[-2:]) == tuple(shape):
        return maps
    return interpolate(maps, size=tuple(shape), mode='bilinear', align_corners=align_corners)


class MapAggregator:
    """Averages heatmaps over test scales as they are added, and keeps the tags of one scale.

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
        self.shape = None if base_size is None else (base_size[1], base_size[0])
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
        """Adds one scale.

        Args:
            heatmaps: One [B, K, h, w] per stage of the network, last stage last.
            tags: One [B, K, h, w] (or [B, 1, h, w], shared by all keypoints) per stage that predicts tags; None if the
                tags of this scale are not used.
            flipped_heatmaps, flipped_tags: Heatmaps and tags of the flipped image, as the network returns them.
            flip_indices: Counterpart of every keypoint; required with flipped maps.
        """
        stage_shape = self.shape if self.project else tuple(heatmaps[-1].shape[-2:])
        self.shape = self.shape or stage_shape
        merged = self._average(heatmaps, stage_shape)
        if flipped_heatmaps is not None:
            if flip_indices is None:
                raise InputError('merging maps of the flipped image needs flip_indices (which keypoint becomes which)')
            flipped = [unflip(maps, flip_indices) for maps in flipped_heatmaps]
            merged = (merged + self._average(flipped, stage_shape)) * 0.5
        merged = resize(merged, self.shape, self.align_corners)
        self._sum = merged if self._sum is None else self._sum + merged
        self._count += 1
        if tags is not None:
            flipped = [unflip(maps, flip_indices if maps.shape[1] > 1 else None) for maps in flipped_tags or ()]
            self._tags = [resize(maps, self.shape, self.align_corners) for maps in (*tags, *flipped)]

    def result(self) -> tuple[Tensor, Tensor]:
        """Returns heatmaps [B, K, H, W] and tags [B, K, H, W, L], L being 1, or 2 with the flipped image.

        The tags are a view whose last dimension is the slowest in memory.
        """
        if self._tags is None:
            raise RuntimeError(f'no scale {"" if self._sum is None else "with tags "}was added')
        heatmaps = self._sum if self._count == 1 else self._sum / self._count
        tags = [maps.expand(-1, heatmaps.shape[1], -1, -1) for maps in self._tags]
        if len(tags) == 1:
            return heatmaps, tags[0].unsqueeze(-1)
        return heatmaps, torch.stack(tags).permute(1, 2, 3, 4, 0)

    def _average(self, stages: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
        resized = [resize(maps, shape, self.align_corners) for maps in stages]
        return resized[0] if len(resized) == 1 else sum(resized) / len(resized)


def tag_scale(scales: Sequence[float]) -> float:
    """Returns the scale whose tags are used: 1 if it is among ``scales``, else the one closest to it (as a ratio)."""
    return min(scales, key=lambda scale: max(scale, 1 / scale))
