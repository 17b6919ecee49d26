"""Reads images and preprocesses them into network inputs, by the steps in the exported file."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.arrays import is_array
from icconv_mm_runtime.decoding import decode_image, open_video
from icconv_mm_runtime.errors import RuntimeInputError, printable, refusing
from icconv_mm_runtime.warping import warp, warp_matrix

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.gif')


@dataclass
class Sample:
    """An image on its way into the network."""

    path: str  # or a name for an array or a frame
    image: np.ndarray  # [H, W, 3], uint8, BGR
    levels: list[np.ndarray] = field(default_factory=list)  # inputs of the network, one for each test scale
    valid_shape: tuple[int, int] = (0, 0)  # height and width of the first level without the padding of the batch
    input_shape: tuple[int, int] = (0, 0)  # and with the padding
    scale: tuple[float, float] = (1.0, 1.0)  # factors (x, y) from the image to the first level
    region: tuple | None = None  # for poses: size at scale 1, centre and extent of the shown region, all (x, y)


def read_all(images: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and pixels of a file, a folder, a video, a stream, a camera, an array, or several of them.

    A stream is a URL that OpenCV opens, a camera its number. An array (:func:`as_array`) is called ``array``; among
    several, with its number from 0 (``array_0``), or by name in a pair ``(name, array)``. The pair may also hold the
    bytes of a file.

    Raises:
        RuntimeInputError: One of them cannot be read.
    """
    for path, image in try_read_all(images):
        if isinstance(image, RuntimeInputError):
            raise image
        yield path, image


def try_read_all(images: Any) -> Iterator[tuple[str, np.ndarray | RuntimeInputError]]:
    """Like :func:`read_all`, but yields the error in place of the pixels of an unreadable image.

    Raises:
        RuntimeInputError: An element has the wrong type.
    """
    if is_array(images):
        images = [('array', images)]
    elif isinstance(images, (str, Path)):
        images = [images]
    elif not isinstance(images, Iterable):
        raise _wrong_kind(images)
    for number, image in enumerate(images):
        is_pair = isinstance(image, tuple) and len(image) == 2 and isinstance(image[0], str)
        name, content = image if is_pair else (f'array_{number}', image)
        if is_array(content):
            yield _attempt(name, as_array, content)
        elif isinstance(content, bytes) and content is not image:
            yield _attempt(name, _decoded_bytes, content, name)
        elif image == '':  # Path would read the working directory
            yield '', RuntimeInputError('images: a name is empty')
        elif is_stream(image):
            yield from _frames(image)
        elif isinstance(image, (str, Path)):
            yield from _try_read(Path(image))
        else:
            raise _wrong_kind(image)


def as_array(image: Any) -> np.ndarray:
    """Returns pixels [H, W, 3], uint8, BGR.

    Args:
        image: An array as it is returned; an image of PIL, rotated by its EXIF orientation as files are; or a tensor of
            torch [3, H, W], uint8, RGB, as torchvision reads images.

    Raises:
        RuntimeInputError: It has another shape or depth.
    """
    package = type(image).__module__.split('.')[0]
    if package == 'PIL':
        from PIL import ImageOps

        if image.mode not in ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'YCbCr'):
            raise RuntimeInputError(f'an image of PIL must have 8 bits a channel, got mode {image.mode}')
        image = np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1]
    elif package == 'torch':
        if image.ndim != 3 or image.shape[0] != 3 or str(image.dtype) != 'torch.uint8':
            kind = f'{list(image.shape)} of {image.dtype}'
            raise RuntimeInputError(f'a tensor must be [3, height, width] of uint8 in the order RGB, got {kind}')
        image = image.detach().cpu().numpy()[::-1].transpose(1, 2, 0)
    return _bgr_image(np.ascontiguousarray(image))


def is_stream(given: Any) -> bool:
    """Returns whether an input is a URL or the number of a camera, unless a file has this name."""
    is_one = isinstance(given, str) and ('://' in given or (given.isdecimal() and len(given) < 10))
    return is_one and not Path(given).exists()


def _wrong_kind(given: Any) -> RuntimeInputError:
    return RuntimeInputError(
        f'images: expected files, folders, videos, streams or arrays, got {printable(repr(given))[:60]}'
    )


def _try_read(path: Path) -> Iterator[tuple[str, np.ndarray | RuntimeInputError]]:
    _, files = _attempt(str(path), lambda: images_among(path.iterdir()) if path.is_dir() else [path])
    if not files:
        files = RuntimeInputError(f'{path}: no image ({", ".join(IMAGE_SUFFIXES)}) in this folder')
    if isinstance(files, RuntimeInputError):
        yield str(path), files
        return
    for file in files:
        if file.suffix.lower() in VIDEO_SUFFIXES:
            yield from _frames(file)
        else:
            yield _attempt(str(file), _decoded, file)


def images_among(paths: Iterable[Path]) -> list[Path]:
    """Returns the image files among some paths, by suffix, sorted."""
    return sorted(path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())


def _attempt(name: str, function: Callable[..., Any], *arguments: Any) -> tuple[str, Any]:
    """Returns the name, and the function's result or the image's error."""
    try:
        with refusing(name):
            return name, function(*arguments)
    except RuntimeInputError as error:
        return name, error


def _bgr_image(image: np.ndarray, name: str = 'an array') -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        kind = f'{list(image.shape)} of {image.dtype}'
        raise RuntimeInputError(f'{name} must be [height, width, 3] of uint8 in the order BGR, got {kind}')
    height, width = image.shape[:2]
    if height * width > limits.MAX_IMAGE_PIXELS:
        raise RuntimeInputError(f'{name}: has {width}x{height} pixels, at most {limits.MAX_IMAGE_PIXELS} are read')
    return image


def _decoded(path: Path) -> np.ndarray:
    if not path.is_file():
        raise RuntimeInputError(f'{path}: no such file')
    check_bytes(path.stat().st_size, str(path))
    return _decoded_bytes(path.read_bytes(), str(path))


def check_bytes(count: int, name: str) -> None:
    """Raises RuntimeInputError if an image file is larger than :data:`limits.MAX_IMAGE_BYTES`."""
    if count > limits.MAX_IMAGE_BYTES:
        raise RuntimeInputError(f'{name}: has {count} bytes, at most {limits.MAX_IMAGE_BYTES} are read')


def _decoded_bytes(content: bytes, name: str) -> np.ndarray:
    check_bytes(len(content), name)
    return _bgr_image(decode_image(content), name)


def _opened(source: str | Path) -> cv2.VideoCapture:
    return open_video(int(source) if isinstance(source, str) and source.isdecimal() else source)


def _frames(source: str | Path) -> Iterator[tuple[str, np.ndarray | RuntimeInputError]]:
    """Yields the frames of a video; and the error if a stream or a camera is lost."""
    name, video = _attempt(str(source), _opened, source)
    if isinstance(video, RuntimeInputError):
        yield name, video
        return
    is_file, count = isinstance(source, Path), 0
    stem = source.stem if is_file else f'camera_{source}' if source.isdecimal() else 'stream'
    try:
        while True:
            name, image = _attempt(str(source), _frame, video)
            if image is None and not count:
                what = 'no such file, or no video that OpenCV can read' if is_file else 'OpenCV cannot read it'
                image = RuntimeInputError(f'{source}: {what}')
            elif image is None and not is_file and _is_lost(video, count):
                image = RuntimeInputError(f'{source}: the stream ended after {count} frames')
            if not isinstance(image, np.ndarray):
                if image is not None:
                    yield name, image
                break
            count += 1
            yield f'{stem}_{count:06d}.jpg', image
    finally:
        video.release()


def _is_lost(video: cv2.VideoCapture, count: int) -> bool:
    """Returns whether a stream has no known length, or ended more than a second before it: lengths are estimates."""
    length, rate = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    return length <= 0 or count < length - rate


def _frame(video: cv2.VideoCapture) -> np.ndarray | None:
    is_there, image = video.read()
    return _bgr_image(image, 'a frame') if is_there else None


def preprocess(sample: Sample, steps: Sequence[Mapping[str, Any]]) -> Sample:
    """Computes a sample's network inputs by the steps in the file, and returns it."""
    sample.levels = [sample.image]
    for step in steps:
        options = dict(step)
        with refusing(sample.path):
            _STEPS[options.pop('op')](sample, **options)
    if sample.valid_shape == (0, 0):
        sample.valid_shape = sample.levels[0].shape[:2]
    return sample


def _check_sizes(sample: Sample, *sizes: Sequence[int]) -> None:
    """Raises RuntimeInputError if levels of these sizes (width, height) are too large, before memory is allocated."""
    is_right = all(min(size) >= 1 and max(size) <= limits.MAX_SIDE for size in sizes)
    if not is_right or sum(map(math.prod, sizes)) > limits.MAX_LEVEL_PIXELS:
        height, width = sample.image.shape[:2]
        sizes_in_words = ', '.join(f'{size[0]}x{size[1]}' for size in sizes)
        raise RuntimeInputError(f'{sample.path}: {width}x{height} pixels would become {sizes_in_words}')


def _to_size(sample: Sample, size: tuple[int, int]) -> None:
    """Resizes to ``size`` (width, height)."""
    _check_sizes(sample, size)
    (image,) = sample.levels
    height, width = image.shape[:2]
    sample.levels = [cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)]
    sample.scale = size[0] / width, size[1] / height


def _resize(sample: Sample, scale: Sequence[int], keep_ratio: bool) -> None:
    """Resizes like mmcv's ``Resize``."""
    height, width = sample.levels[0].shape[:2]
    if keep_ratio:
        factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
        scale = int(width * factor + 0.5), int(height * factor + 0.5)
    _to_size(sample, tuple(scale))


def _resize_edge(sample: Sample, scale: int, edge: str) -> None:
    """Resizes like mmpretrain's ``ResizeEdge``."""
    height, width = sample.levels[0].shape[:2]
    if edge == 'width' or (edge == 'short' and width < height) or (edge == 'long' and width > height):
        _to_size(sample, (scale, int(scale * height / width)))
    else:
        _to_size(sample, (int(scale * width / height), scale))


def _center_crop(sample: Sample, size: Sequence[int]) -> None:
    """Crops to (width, height) like mmcv's ``CenterCrop``."""
    (image,) = sample.levels
    y, x = (max(0, round((side - wanted) / 2)) for side, wanted in zip(image.shape, size[::-1]))
    sample.levels = [image[y : y + size[1], x : x + size[0]]]


def _pad(sample: Sample, size: Sequence[int], value: Sequence[float]) -> None:
    """Pads to (width, height), on the right and below, like mmdet's ``Pad``."""
    (image,) = sample.levels
    below, right = max(size[1] - image.shape[0], 0), max(size[0] - image.shape[1], 0)
    _check_sizes(sample, (image.shape[1] + right, image.shape[0] + below))
    sample.levels = [cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT, value=tuple(value))]


def pyramid_layout(
    image_size: Sequence[int], input_size: Sequence[int], scales: Sequence[float], size_divisor: int, stride: int
) -> tuple[tuple, tuple, tuple, tuple]:
    """Returns each level's size, the size at scale 1, and centre and extent of the region all show, each (x, y)."""
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
    # Python's round, half to even, as in the tests of the published models
    return sizes, base, (float(round(width / 2)), float(round(height / 2))), extent


def _pyramid(sample: Sample, **rule: Any) -> None:
    """Resizes like icconv_mm's ``MultiScaleResize``: every level shows the same region of the image."""
    sizes, base, center, extent = pyramid_layout(sample.image.shape[1::-1], **rule)
    _check_sizes(sample, *sizes)
    matrices = [warp_matrix(size, center, extent) for size in sizes]
    sample.levels = [warp(sample.image, matrix, size) for matrix, size in zip(matrices, sizes)]
    sample.region = base, np.array(center, np.float32), np.array(extent, np.float32)


def _fit(sample: Sample, input_size: Sequence[int], value: Sequence[float]) -> None:
    """Resizes like mmpose's ``BottomupResize`` of mode 'fit': the whole image in the middle of the input."""
    height, width = sample.image.shape[:2]
    ratio, (wide, high) = width / height, input_size
    actual = min(wide, high * ratio), min(high, wide / ratio)
    center = np.array([width / 2, height / 2], np.float32)
    extent = np.array([width * wide / actual[0], height * high / actual[1]], np.float32)
    sample.levels = [warp(sample.image, warp_matrix(input_size, center, extent), input_size, value)]
    sample.region = (wide, high), center, extent


_STEPS = {
    'resize': _resize,
    'resize_edge': _resize_edge,
    'center_crop': _center_crop,
    'pad': _pad,
    'pyramid': _pyramid,
    'fit': _fit,
}


def batch_key(sample: Sample, batch: Mapping[str, Any]) -> object:
    """Returns what the samples of a batch have in common: their sizes, unless the batch rule in the file pads them."""
    return None if batch['pads'] else tuple(level.shape for level in sample.levels)


def arrays_of(samples: Sequence[Sample], batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns the network inputs for a batch, by name."""
    shapes = [_input_shape(levels, samples[0].path, batch) for levels in zip(*(sample.levels for sample in samples))]
    if (pixels := len(samples) * sum(map(math.prod, shapes))) > limits.MAX_INPUT_PIXELS:
        raise RuntimeInputError(
            f'{samples[0].path}: an input of {pixels} pixels is too large, at most {limits.MAX_INPUT_PIXELS} are given '
            'to a network; try fewer images in a batch'
        )
    arrays = {}
    for number, shape in enumerate(shapes):
        stack = np.zeros((len(samples), 3, *shape), np.uint8)
        for row, sample in zip(stack, samples):
            level = sample.levels[number]
            row[:, : level.shape[0], : level.shape[1]] = level.transpose(2, 0, 1)
        arrays[f'image_{number}' if number else 'image'] = stack
    for sample in samples:
        sample.input_shape = tuple(shapes[0])
    if batch['sized']:
        # the inverse of the scale, as libraries multiply boxes by it
        scales = [(*sample.valid_shape, *(1 / factor for factor in sample.scale)) for sample in samples]
        arrays['size'] = np.array(scales, np.float32)
    return arrays


def _input_shape(levels: Sequence[np.ndarray], path: str, batch: Mapping[str, Any]) -> Sequence[int]:
    """Returns height and width of the input for these levels."""
    shape = [-(-max(level.shape[axis] for level in levels) // batch['divisor']) * batch['divisor'] for axis in (0, 1)]
    fixed = batch.get('fixed')
    # without the input 'size', a network would treat the padding as part of the image
    if fixed and any(side > most or (side < most and not batch['sized']) for side, most in zip(shape, fixed)):
        raise RuntimeInputError(
            f'{path}: needs an input of {shape[0]}x{shape[1]}, the file allows {fixed[0]}x{fixed[1]}'
        )
    return fixed or shape
