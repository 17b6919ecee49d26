"""Label Studio's RLE of brush strokes: a bit stream of RGBA values, as the JavaScript library rle-pack has it.

After 32 bits for the number of values, 5 for the bits of a value and four of 4 for the widths of lengths, each run
has a bit (1: one value repeated), 2 bits that choose its width, its length less one, and its value or values.
"""

from collections.abc import Sequence

import numpy as np

from icconv_mm.datasets.reading import DatasetError

_WIDTHS = (3, 4, 8, 16)  # bits of the length of a run, as Label Studio writes them


def decode_brush(values: Sequence[int], size: tuple[int, int]) -> np.ndarray:
    """Decodes an RLE to a mask [H, W], uint8: 1 where a pixel is opaque.

    Args:
        values: The bytes.
        size: Width and height of the image.

    Raises:
        DatasetError: They are no RLE, or of an image of another size.
    """
    count = 4 * size[0] * size[1]
    try:
        content = bytes(values)
    except (ValueError, TypeError) as error:
        raise DatasetError('rle: expected bytes') from error
    bits, at = np.unpackbits(np.frombuffer(content, np.uint8)), 0

    def number(width: int) -> int:
        nonlocal at
        first, at = at // 8, at + width
        last = -(-at // 8)
        return int.from_bytes(content[first:last], 'big') >> (8 * last - at) & ((1 << width) - 1)

    is_repeated, word = number(32), number(5) + 1
    widths = [number(4) + 1 for _ in range(4)]
    if is_repeated != count or word != 8:
        raise DatasetError(f'rle has {is_repeated} values, its image {size[0]} x {size[1]} pixels of four')
    decoded = np.zeros(count, np.uint8)
    filled = 0
    while filled < count:
        is_run = number(1)
        length = number(widths[number(2)]) + 1
        last = at + 8 * (1 if is_run else length)
        if last > len(bits) or filled + length > count:
            raise DatasetError(f'rle ends after {filled} of {count} values')
        decoded[filled : filled + length] = np.packbits(bits[at:last])
        at, filled = last, filled + length
    return (decoded.reshape(size[1], size[0], 4)[..., 3] > 0).astype(np.uint8)


def encode_brush(mask: np.ndarray) -> list[int]:
    """Encodes a mask [H, W] as Label Studio's RLE, in bytes."""
    pixels = (np.asarray(mask).ravel() > 0).view(np.int8)
    starts = np.flatnonzero(np.diff(pixels, prepend=-1))
    bits = [f'{4 * len(pixels):032b}', f'{7:05b}', *(f'{width - 1:04b}' for width in _WIDTHS)]
    for start, length in zip(starts.tolist(), (4 * np.diff(starts, append=len(pixels))).tolist()):
        while length:
            part = min(length, 1 << _WIDTHS[-1])
            index = next(i for i, width in enumerate(_WIDTHS) if part <= 1 << width)
            bits.append(f'1{index:02b}{part - 1:0{_WIDTHS[index]}b}{255 * int(pixels[start]):08b}')
            length -= part
    text = ''.join(bits)
    return [int(text[i : i + 8].ljust(8, '0'), 2) for i in range(0, len(text), 8)]
