"""Decodes images and opens videos: for training, for prediction and for exported files."""

import math
import re
import struct
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

_DARK = 1 << 14  # 16-bit pixels are loaded as their upper 8 bits: 12-bit data would keep 4 bits
_HOT = 1e-3  # share of the pixels that a sensor may have too bright in a dark image
_MOST_PAGES = 1 << 16  # that are counted: a damaged file may lead in a circle
_SUBFILE, _LONG = 254, 4  # TIFF: the tag that marks thumbnails, and its type
_JPEG, _END, _TAIL = b'\xff\xd8', b'\xff\xd9', 4096  # some cameras append their own data to a JPEG: bytes of a tail
_GREY, _LACKING = 128, 0.02  # where a JPEG ends early, and the share of its rows that may be so
_STACK = re.compile(rb'ImageJ=[^\0]{0,99}?\nimages=(\d{1,9})\n')  # which writes large ones with one directory


class ImageDefect(ValueError):
    """An image has no pixels that can be used as they are; the message says why, without the name of the file."""


def decode_image(content: bytes | np.ndarray, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Returns the pixels [H, W, 3] of an image file, uint8, BGR, rotated as its EXIF says.

    Pixels of 16 bits are loaded as their upper 8 bits. A JPEG may lack its end, which OpenCV 4.11 does not load, 4.8
    does, as long as it has its rows but for a fiftieth.

    Args:
        content: The bytes of the file.
        flags: OpenCV's, with IMREAD_COLOR: for example to ignore the orientation, or to reduce the image.

    Raises:
        ImageDefect: It is no image, or has several pages, pixels that would be loaded almost black, or such of floats,
            which have no known range.
    """
    require_one_page(BytesIO(content))
    is_cut = lacks_end(content)
    pixels = np.frombuffer(bytes(content) + _END if is_cut else content, np.uint8)
    image = None
    if pixels.size:
        image = cv2.imdecode(pixels, flags if _has_8_bits(content) else flags | cv2.IMREAD_ANYDEPTH)
    if image is None:
        raise ImageDefect(_undecodable(content))
    if image.dtype == np.uint16:
        is_bright = image >= _DARK
        if (count := np.count_nonzero(is_bright)) <= _HOT * image.size:
            most, others = int(image[~is_bright].max(initial=0)), ', but for one in a thousand' if count else ''
            what = f'pixels go up to {most} of 65535{others}, which are loaded as {most >> 8} of 255'
            raise ImageDefect(f'{what}: save it with 8 bits')
        return cv2.imdecode(pixels, flags)
    if image.dtype != np.uint8:
        raise ImageDefect(f'pixels of {image.dtype}, whose range is not known: save it with 8 bits')
    if is_cut and (lost := _grey_share(image)) > _LACKING:
        raise ImageDefect(f'truncated: {lost:.0%} of it are missing')
    return image


def lacks_end(content: bytes | np.ndarray) -> bool:
    """Returns whether the bytes of a file are of a JPEG without its end marker."""
    return bytes(content[:2]) == _JPEG and _END not in bytes(content[-_TAIL:])


def _grey_share(image: np.ndarray) -> float:
    """Returns the share of rows or columns at an edge that have no pixel but grey: EXIF may rotate the lower edge."""
    is_grey = np.abs(image.astype(np.int16) - _GREY).max(2) <= 1
    lines = is_grey.all(1), is_grey.all(0)
    return max(np.append(edge, False).argmin() / len(edge) for edge in (*lines, *(line[::-1] for line in lines)))


def _undecodable(content: bytes | np.ndarray) -> str:
    start = bytes(content[:4])
    kind = next((kind for begin, kind in _KINDS.items() if start.startswith(begin)), None)
    if kind is None:
        return 'is no image, or is damaged'
    return f'is damaged, or a {kind} that OpenCV {cv2.__version__} does not load: save it as PNG with 8 bits'


_KINDS = {b'GIF8': 'GIF', b'II': 'TIFF', b'MM': 'TIFF', b'P': 'PNM'}  # of which OpenCV reads a part


def decode_mask(content: bytes) -> np.ndarray | None:
    """Returns the pixels of a PNG as stored, [H, W] or [H, W, channels]; None if it cannot be decoded.

    Raises:
        ImageDefect: It has several frames.
    """
    require_one_page(BytesIO(content))
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None


def require_one_page(file: BinaryIO) -> None:
    """Raises ImageDefect for an image file of several pages or frames, of which one alone would be read."""
    if (count := count_pages(file)) > 1:
        raise ImageDefect(f'has {count} pages, of which one alone would be read: save each as an image')


def count_pages(file: BinaryIO) -> int:
    """Returns the number of pages of a TIFF, of frames of a PNG, a WebP or a GIF, or of images of a PNM; else 1.

    Thumbnails and reduced copies of a TIFF are none, nor the second image of a JPEG, which shows the same.
    """
    file.seek(0)
    start = file.read(12)
    try:
        if start[:4] in _TIFF:
            return _pages_of_tiff(file, _TIFF[start[:4]])
        if start.startswith(b'\x89PNG'):
            return _frames_of_png(file)
        if start[:4] == b'RIFF' and start[8:] == b'WEBP':
            return _frames_of_webp(file)
        if start[:4] == b'GIF8':
            return _frames_of_gif(file)
        if start[:1] == b'P':
            return _images_of_pnm(file)
    except (struct.error, IndexError, OverflowError, KeyError, ValueError):  # it ends early: decoding tells
        pass
    return 1


# Byte order, and of an address, a number of entries and a value: their letters for struct, and the bytes of an entry.
_TIFF = {
    b'II*\0': ('<', 'I', 'H', 12),
    b'MM\0*': ('>', 'I', 'H', 12),
    b'II+\0': ('<', 'Q', 'Q', 20),
    b'MM\0+': ('>', 'Q', 'Q', 20),
}


def _pages_of_tiff(file: BinaryIO, form: tuple[str, str, str, int]) -> int:
    order, address, number, size = form

    def read(letters: str) -> tuple[int, ...]:
        return struct.unpack(order + letters, file.read(struct.calcsize(order + letters)))

    file.seek(4 if address == 'I' else 8)
    (position,), count, seen = read(address), 0, set()
    while position and position not in seen and len(seen) < _MOST_PAGES:
        seen.add(position)
        file.seek(position)
        (entries,) = read(number)
        table = file.read(entries * size)
        if len(table) < entries * size:
            break
        tags = (struct.unpack_from(f'{order}HH', table, start) + (start,) for start in range(0, len(table), size))
        offsets = [start for tag, kind, start in tags if tag == _SUBFILE and kind == _LONG]
        marks = [
            struct.unpack_from(f'{order}I', table, start + size - struct.calcsize(address))[0] for start in offsets
        ]
        count += not any(mark & 1 for mark in marks)
        (position,) = read(address)
    if count == 1:
        file.seek(0)
        stack = _STACK.search(file.read(1 << 12))
        count = int(stack[1]) if stack else 1
    return count


def _frames_of_png(file: BinaryIO) -> int:
    """Returns the number of frames in the chunk that an animated PNG has before its pixels."""
    file.seek(8)
    while True:
        length, kind = struct.unpack('>I4s', file.read(8))
        if kind == b'acTL':
            return struct.unpack('>I', file.read(4))[0]
        if kind == b'IDAT':
            return 1
        file.seek(length + 4, 1)


def _frames_of_webp(file: BinaryIO) -> int:
    count, position = 0, 12
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return max(count, 1)
        kind, length = struct.unpack('<4sI', head)
        if kind in (b'VP8 ', b'VP8L'):
            return 1
        count += kind == b'ANMF'
        position += 8 + length + length % 2


def _frames_of_gif(file: BinaryIO) -> int:
    """Returns the number of images among the blocks of a GIF."""
    file.seek(10)
    flags, count = file.read(3)[0], 0
    file.seek(3 << (flags & 7) + 1 if flags & 128 else 0, 1)
    while (kind := file.read(1)) in (b'!', b','):
        if kind == b',':
            count += 1
            flags = file.read(9)[8]
            file.seek(3 << (flags & 7) + 1 if flags & 128 else 0, 1)
        file.seek(1, 1)  # kind of an extension, or size of a code
        while length := file.read(1)[0]:
            file.seek(length, 1)
    return max(count, 1)


_SPACE = rb'(?:\s|#[^\n]*\n)+'
_PNM = re.compile(rb'\s*P([456])' + 2 * (_SPACE + rb'(\d{1,9})') + rb'(?:' + _SPACE + rb'(\d{1,5}))?\s')
_PAM = re.compile(rb'\s*P7\s(.{1,900}?)ENDHDR\s*?\n', re.DOTALL)


def _images_of_pnm(file: BinaryIO) -> int:
    """Returns the number of images that follow each other; those in decimals are alone in their file."""
    count = offset = 0
    while count < _MOST_PAGES:
        file.seek(offset)
        head = file.read(1 << 10)
        if match := _PNM.match(head):
            kind, width, height, most = (int(number or 1) for number in match.groups())
            bits = 1 if kind == 4 else (8 + 8 * (most > 255)) * (3 if kind == 6 else 1)
            offset += (match.end() if kind > 4 else match.end(3) + 1) + (width * bits + 7) // 8 * height
        elif match := _PAM.match(head):
            about = dict(line.split(None, 1) for line in match[1].splitlines() if len(line.split(None, 1)) == 2)
            sides = (int(about[key]) for key in (b'WIDTH', b'HEIGHT', b'DEPTH'))
            offset += match.end() + math.prod(sides) * (1 + (int(about[b'MAXVAL']) > 255))
        else:
            break
        count += 1
    return max(count, 1)


def _has_8_bits(content: bytes | np.ndarray) -> bool:
    """Returns whether the header shows that pixels have at most 8 bits: what most images are is decoded once."""
    start = bytes(content[:26])
    is_png = start.startswith(b'\x89PNG') and len(start) == 26
    return start.startswith((b'\xff\xd8', b'BM')) or start[8:12] == b'WEBP' or (is_png and start[24] <= 8)


def open_video(source: str | int | Path) -> cv2.VideoCapture:
    """Opens a video file, the URL of a stream, or the number of a camera; one that cannot be opened is not `isOpened`.

    Raises:
        ImageDefect: The path is not UTF-8, which crashes OpenCV, or the file is none of a video: a playlist would
            open the files that it names.
    """
    if isinstance(source, int) or '://' in str(source):
        return cv2.VideoCapture(source if isinstance(source, int) else str(source))
    try:
        str(source).encode()
    except UnicodeEncodeError:
        raise ImageDefect('OpenCV opens no video whose path is not UTF-8: rename it') from None
    if not Path(source).is_file():
        return cv2.VideoCapture()
    with open(source, 'rb') as file:
        start = file.read(12)
    if start and not (start.startswith(_CONTAINERS) or start[4:8] in _BOXES):
        raise ImageDefect('is no video file; a list of other files is not opened')
    return cv2.VideoCapture(str(source))


# How files of videos begin: AVI, Matroska and WebM, GIF, MPEG, FLV, ASF, Ogg; and the first box of MP4 and QuickTime.
_CONTAINERS = (
    b'RIFF', b'\x1aE\xdf\xa3', b'GIF8', b'\0\0\1', b'\0\0\0\1', b'FLV', b'0&\xb2u', b'OggS', b'\xff\xd8\xff'
)  # fmt: skip
_BOXES = (b'ftyp', b'moov', b'mdat', b'wide', b'free', b'skip', b'pnot')
