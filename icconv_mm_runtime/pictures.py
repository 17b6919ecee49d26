"""From a picture to the inputs of a network, by the steps that the file names."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from icconv_mm_runtime.errors import RuntimeInputError

PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
_LONGEST = 32766  # pixels of a side that OpenCV can warp to
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')


@dataclass
class Picture:
    """A picture on its way into a network."""

    path: str  # or a name for an array or a frame
    image: np.ndarray  # [H, W, 3], uint8, BGR
    levels: list[np.ndarray] = field(default_factory=list)  # what the network reads, one for each test scale
    valid: tuple[int, int] = (0, 0)  # height and width of the first level without what a batch adds
    input_size: tuple[int, int] = (0, 0)  # and with it
    scale: tuple[float, float] = (1.0, 1.0)  # factors (x, y) from the picture to the first level
    region: tuple | None = None  # of poses: the size at scale 1, centre and extent of what it shows, all (x, y)


def read_all(pictures: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels of a file, a folder, a video, an array, or several of them."""
    if isinstance(pictures, np.ndarray):
        if pictures.ndim != 3 or pictures.shape[2] != 3 or pictures.dtype != np.uint8 or not pictures.size:
            found = f'{list(pictures.shape)} of {pictures.dtype}'
            raise RuntimeInputError(f'an array must be [height, width, 3] of uint8 in the order BGR, got {found}')
        yield 'array', pictures
    elif not isinstance(pictures, (str, Path)):
        for each in pictures:
            yield from read_all(each)
    elif (path := Path(pictures)).is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES and file.is_file())
        if not found:
            raise RuntimeInputError(f'{path}: no picture ({", ".join(PICTURES)}) in this folder')
        yield from read_all(found)
    elif path.suffix.lower() in VIDEOS:
        yield from _frames(path)
    else:
        yield str(path), _decoded(path)


def _decoded(path: Path) -> np.ndarray:
    if not path.is_file():
        raise RuntimeInputError(f'{path}: no such file')
    content = np.fromfile(path, np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR) if content.size else None
    if image is None:
        raise RuntimeInputError(f'{path}: is no picture, or is damaged')
    return image


def _frames(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise RuntimeInputError(f'{path}: no such file, or no video that OpenCV can read')
    count = 0
    while (grabbed := video.read())[0]:
        count += 1
        yield f'{path.stem}_{count:06d}.jpg', grabbed[1]
    video.release()


def prepare(picture: Picture, steps: Sequence[Mapping[str, Any]]) -> Picture:
    """The picture with what the network reads of it, by the steps in the file."""
    picture.levels = [picture.image]
    for step in steps:
        options = dict(step)
        _STEPS[options.pop('op')](picture, **options)
    if picture.valid == (0, 0):
        picture.valid = picture.levels[0].shape[:2]
    return picture


def _check_size(picture: Picture, size: Sequence[int]) -> None:
    if min(size) < 1 or max(size) > _LONGEST:
        height, width = picture.image.shape[:2]
        raise RuntimeInputError(f'{picture.path}: {width}x{height} pixels would become {size[0]}x{size[1]}')


def _to_size(picture: Picture, size: tuple[int, int]) -> None:
    """``size`` is (width, height)."""
    _check_size(picture, size)
    (image,) = picture.levels
    height, width = image.shape[:2]
    picture.levels = [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)]
    picture.scale = size[0] / width, size[1] / height


def _resize(picture: Picture, scale: Sequence[int], keep_ratio: bool) -> None:
    """mmcv's ``Resize``."""
    height, width = picture.levels[0].shape[:2]
    if keep_ratio:
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        scale = int(width * factor + 0.5), int(height * factor + 0.5)
    _to_size(picture, tuple(scale))


def _resize_edge(picture: Picture, scale: int, edge: str) -> None:
    """mmpretrain's ``ResizeEdge``."""
    height, width = picture.levels[0].shape[:2]
    if edge == 'width' or (edge == 'short' and width < height) or (edge == 'long' and width > height):
        _to_size(picture, (scale, int(scale * height / width)))
    else:
        _to_size(picture, (int(scale * width / height), scale))


def _center_crop(picture: Picture, size: Sequence[int]) -> None:
    """mmcv's ``CenterCrop`` to (width, height)."""
    (image,) = picture.levels
    y, x = (max(0, round((side - wanted) / 2)) for side, wanted in zip(image.shape, size[::-1]))
    picture.levels = [image[y : y + size[1], x : x + size[0]]]


def _pad(picture: Picture, size: Sequence[int], value: Sequence[float]) -> None:
    """mmdet's ``Pad`` to (width, height), on the right and below."""
    (image,) = picture.levels
    below, right = max(size[1] - image.shape[0], 0), max(size[0] - image.shape[1], 0)
    picture.levels = [cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=tuple(value))]


def pyramid_layout(
    image_size: Sequence[int], input_size: Sequence[int], scales: Sequence[float], size_divisor: int, stride: int
) -> tuple[tuple, tuple, tuple, tuple]:
    """The size of each level, that at scale 1, and centre and extent of what all show, each (x, y)."""
    width, height = image_size
    portrait, smallest = width < height, min(scales)
    short, long = sorted(image_size)
    short_side = math.ceil(smallest * input_size[0 if portrait else 1] / size_divisor) * size_divisor
    long_side = math.ceil(short_side / short * long / size_divisor) * size_divisor
    least = (short_side, long_side) if portrait else (long_side, short_side)
    levels = [tuple(int(side * scale / smallest) for side in least) for scale in scales]
    sizes = tuple(tuple(max(stride, int(side / stride + 0.5) * stride) for side in level) for level in levels)
    base = tuple(int(side / smallest) for side in least)
    extent = (width, base[1] / base[0] * width) if portrait else (base[0] / base[1] * height, height)
    # Python's round, half to even, is what the published models were tested with
    return sizes, base, (float(round(width / 2)), float(round(height / 2))), extent


def warp_matrix(size: Sequence[int], center: Sequence[float], extent: Sequence[float]) -> np.ndarray:
    """The 2 x 3 matrix from pixels of the picture to those of a level of ``size``."""
    ratio = np.divide(size, extent)
    return np.column_stack([np.diag(ratio), np.divide(size, 2) - ratio * center])


def _pyramid(picture: Picture, **rule: Any) -> None:
    """icconv_mm's ``MultiScaleResize``: every level shows the same region of the picture."""
    sizes, base, center, extent = pyramid_layout(picture.image.shape[1::-1], **rule)
    _check_size(picture, sizes[0])
    matrices = [warp_matrix(size, center, extent) for size in sizes]
    picture.levels = [
        cv2.warpAffine(picture.image, matrix, size, flags=cv2.INTER_LINEAR) for matrix, size in zip(matrices, sizes)
    ]
    picture.region = base, np.array(center, np.float32), np.array(extent, np.float32)


def _fit(picture: Picture, input_size: Sequence[int], value: Sequence[float]) -> None:
    """mmpose's ``BottomupResize`` of mode 'fit': the whole picture in the middle of the input."""
    height, width = picture.image.shape[:2]
    ratio, (wide, high) = width / height, input_size
    actual = min(wide, high * ratio), min(high, wide / ratio)
    center = np.array([width / 2, height / 2], np.float32)
    extent = np.array([width * wide / actual[0], height * high / actual[1]], np.float32)
    half = extent[0] * 0.5
    # mmpose's three points
    source = np.stack([center, center - [half, 0], center + [-half, half]])
    target = np.array([[wide * 0.5, high * 0.5], [0, high * 0.5], [0, high * 0.5 + wide * 0.5]])
    matrix = cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32))
    picture.levels = [
        cv2.warpAffine(picture.image, matrix, (wide, high), flags=cv2.INTER_LINEAR, borderValue=tuple(value))
    ]
    picture.region = (wide, high), center, extent


_STEPS = {
    'resize': _resize,
    'resize_edge': _resize_edge,
    'center_crop': _center_crop,
    'pad': _pad,
    'pyramid': _pyramid,
    'fit': _fit,
}


def batches(
    pictures: Iterator[Picture], size: int, batch: Mapping[str, Any]
) -> Iterator[tuple[list[Picture], dict[str, np.ndarray]]]:
    """Pictures of equal size in batches, of any size if the rule in the file fills them up, with their arrays."""

    def kind(item: tuple[int, Picture]) -> object:
        return None if batch['pads'] else [level.shape for level in item[1].levels]

    for _, alike in groupby(enumerate(pictures), kind):
        while own := [picture for _, picture in islice(alike, size)]:
            yield own, _arrays(own, batch)


def _arrays(pictures: Sequence[Picture], batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {}
    for number, levels in enumerate(zip(*(picture.levels for picture in pictures))):
        size = [
            -(-max(level.shape[axis] for level in levels) // batch['divisor']) * batch['divisor'] for axis in (0, 1)
        ]
        if fixed := batch.get('fixed'):
            # without the input 'size', a network takes for the picture what would be filled up
            if any(side > most or (side < most and not batch['sized']) for side, most in zip(size, fixed)):
                raise RuntimeInputError(
                    f'{pictures[0].path}: needs an input of {size[0]}x{size[1]}, the file allows {fixed[0]}x{fixed[1]}'
                )
            size = fixed
        stack = np.zeros((len(levels), 3, *size), np.uint8)
        for row, level in zip(stack, levels):
            row[:, : level.shape[0], : level.shape[1]] = level.transpose(2, 0, 1)
        arrays[f'image_{number}' if number else 'image'] = stack
        for picture in pictures if number == 0 else ():
            picture.input_size = stack.shape[2:]
    if batch['sized']:
        # the inverse of the scale, as the libraries multiply boxes by it
        sizes = [(*picture.valid, *(1 / factor for factor in picture.scale)) for picture in pictures]
        arrays['size'] = np.array(sizes, np.float32)
    return arrays
