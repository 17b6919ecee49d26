"""Sizes and coordinate frames of the image pyramid that a bottom-up network is tested on.

Sizes are ``(width, height)`` in pixels. All levels of a pyramid show exactly the same region of the image, so their
heatmaps align after a plain resize.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icconv_mm.errors import InputError

_MAX_SIDE = 32766  # cv2.warpAffine addresses its input and its output with 16-bit coordinates


@dataclass(frozen=True)
class Pyramid:
    """What an image is resized to, and where that region lies in the image."""

    sizes: tuple[tuple[int, int], ...]  # one per test scale, in the order of the scales
    base_size: tuple[int, int]  # at scale 1; predictions are projected to it
    center: tuple[float, float]  # (x, y) of the region in the image
    extent: tuple[float, float]  # (width, height) of the region; exceeds the image where a side was rounded up


def check_source(image_size: tuple[int, int]) -> None:
    """Raise InputError for an image [width, height] that has no pixels, or more on a side than can be warped."""
    width, height = image_size
    if width < 1 or height < 1:
        raise InputError(f'an image of {width} x {height} pixels has no content')
    if max(width, height) > _MAX_SIDE:
        raise InputError(
            f'an image of {width} x {height} pixels is too large: a side has more than {_MAX_SIDE}; shrink it first'
        )


def check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    """Test scales in the order they are run, largest first.

    Raises:
        InputError: If there is none, or one is not a positive finite number, or one occurs twice.
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
    """Lay out the pyramid of one image.

    The short side becomes ``min(scales) x input_size`` rounded up to ``size_divisor``, the long side keeps the ratio
    and is rounded up likewise; the other levels are multiples of that smallest one, so all levels share one region.
    This is the rule of mmpose 0.x (``_get_multi_scale_size``), with one addition: a level whose side is no multiple of
    the network's ``stride`` (possible for lists such as [1, 0.75]) goes to the nearest multiple, because the network
    would pad it and its heatmaps would no longer align with the others.

    Args:
        image_size: ``(width, height)`` of the image.
        input_size: ``(width, height)`` that the network was trained on.
        scales: Positive numbers without repetition.
        size_divisor: Number to whose multiples the sides of the smallest level are rounded up.
        stride: Largest stride of the network.

    Raises:
        InputError: If the scales are unusable (see :func:`check_scales`), a side of the image is empty or exceeds
            32766 pixels, or the image is so long and thin that a level would.
    """
    scales = check_scales(scales)
    check_source(image_size)
    width, height = image_size
    portrait, smallest = width < height, min(scales)
    short, long = sorted(image_size)
    short_min = _ceil_to(smallest * input_size[0 if portrait else 1], size_divisor)
    long_min = _ceil_to(short_min / short * long, size_divisor)
    least = (short_min, long_min) if portrait else (long_min, short_min)

    def level(scale: float) -> tuple[int, int]:
        return tuple(int(side * scale / smallest) for side in least)

    def fit_stride(size: tuple[int, int]) -> tuple[int, int]:
        return tuple(max(stride, int(side / stride + 0.5) * stride) for side in size)

    sizes, base_size = tuple(fit_stride(level(scale)) for scale in scales), level(1)
    if max(max(size) for size in sizes + (base_size,)) > _MAX_SIDE:
        raise InputError(
            f'an image of {width} x {height} pixels is too long and thin: at scales {list(scales)} and '
            f'input size {input_size} its sides become {list(sizes)}, more than {_MAX_SIDE}'
        )
    base_w, base_h = base_size
    extent = (width, base_h / base_w * width) if portrait else (base_w / base_h * height, height)
    # Python's round, half to even, is what the published models were tested with.
    return Pyramid(sizes, base_size, (float(round(width / 2)), float(round(height / 2))), extent)


def warp_matrix(pyramid: Pyramid, size: tuple[int, int]) -> np.ndarray:
    """The 2 x 3 matrix that maps image coordinates to a level of ``size`` (width, height)."""
    ratio = np.divide(size, pyramid.extent)
    return np.column_stack([np.diag(ratio), np.divide(size, 2) - ratio * pyramid.center])


def _ceil_to(value: float, divisor: int) -> int:
    return math.ceil(value / divisor) * divisor
