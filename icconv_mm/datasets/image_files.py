"""Sizes and orientations of image files, as training loads them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from PIL import Image

from icconv_mm.datasets import limits
from icconv_mm.errors import InputError, message_of
from icconv_mm_runtime.decoding import ImageDefect, decode_image, require_one_page

AnyPath = TypeVar('AnyPath', str, Path)


IMAGE_FORMATS = ('JPEG', 'PNG', 'BMP', 'DIB', 'TIFF', 'WEBP', 'GIF', 'PPM')  # formats that Pillow may detect


_WIDTH, _HEIGHT, _BITS, _ORIENTATION = 0x0100, 0x0101, 0x0102, 0x0112  # tags of TIFF and EXIF


@contextmanager
def opened(source: Path | bytes, formats: Sequence[str] = IMAGE_FORMATS) -> Iterator[Image.Image]:
    """Opens an image file, or its content, by Pillow, which decodes the pixels as stored once they are used.

    Raises:
        ImageDefect: It has several pages or frames. OSError, ...: It is no image, or is damaged.
    """
    with open(source, 'rb') if isinstance(source, Path) else BytesIO(source) as file:
        require_one_page(file)
        file.seek(0)
        with Image.open(file, formats=formats) as image:
            yield image


def oriented_size(path: Path) -> tuple[tuple[int, int], int]:
    """Returns width and height of an image after its EXIF rotation, and the orientation (1: not rotated).

    Raises:
        InputError: The file is not a readable image.
    """
    return _head(path)


def _head(path: Path) -> tuple[tuple[int, int], int]:
    """Returns size and orientation as :func:`oriented_size`; decodes images of other pixels than 8 bits."""
    try:
        if not os.path.isfile(path):
            raise FileNotFoundError('there is no such file')
        with opened(path) as image:
            size = image.size
            if size[0] * size[1] > limits.IMAGE_PIXELS:
                most = limits.IMAGE_PIXELS
                raise ValueError(f'{size[0]} x {size[1]} pixels, of which at most {most} are read')
            if _is_deep(image) or len(_loaded_shape(image.format, image.mode)) != 3:
                decode_image(path.read_bytes())
            turn = _turn_of(image)
            if image.format == 'TIFF':  # Pillow has already rotated it
                size = image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]
    except Exception as error:  # whatever a decoder raises, the file is damaged
        raise InputError(f'{path}: cannot be read ({message_of(error)})') from None
    return (size[::-1] if turn in (5, 6, 7, 8) else size), turn


def _is_deep(image: Image.Image) -> bool:
    """Returns whether pixels have more than 8 bits, of which Pillow may show only 8."""
    if image.format == 'TIFF':
        return max(image.tag_v2.get(_BITS) or (1,)) > 8
    return image.mode[0] in 'IF' or '16' in str(image.tile[:1])  # Pillow shows colours of 16 bits as 8


def _turn_of(image: Image.Image) -> int:
    """Returns the orientation by which OpenCV rotates an image when loading it: that of EXIF, not of XMP."""
    if image.format != 'TIFF' and 'exif' not in image.info:
        return 1
    exif = Image.Exif()
    if image.format == 'TIFF':
        exif[_ORIENTATION] = image.tag_v2.get(_ORIENTATION, 1)
    else:
        exif.load(image.info['exif'])
    turn = exif.get(_ORIENTATION, 1)
    if turn == 1:
        return turn
    height, width, _ = _loaded_shape(image.format, image.mode, 6)
    return turn if height > width else 1


@cache
def _loaded_shape(kind: str, mode: str, turn: int = 1) -> tuple[int, ...]:
    """Returns the shape in which OpenCV loads a small image of a format, wider than high before the rotation.

    The shape is empty if OpenCV cannot load it: the supported formats depend on its version.
    """
    image, file, exif = Image.new(mode, (16, 8)), BytesIO(), Image.Exif()
    exif[_ORIENTATION] = turn
    try:
        image.save(file, kind, **({} if turn == 1 else {'exif': exif}))
    except Exception:  # a mode that Pillow reads but cannot write
        return (8, 16, 3)
    return loaded_shape(file.getvalue())


def loaded_shape(content: bytes) -> tuple[int, ...]:
    """Returns the shape of an encoded image as training loads it; empty if it cannot be loaded."""
    try:
        return decode_image(content).shape
    except ImageDefect:
        return ()
