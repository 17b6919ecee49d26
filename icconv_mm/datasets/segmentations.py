"""Checks of masks in COCO form: polygons and RLE, compressed or not."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from icconv_mm.datasets import limits
from icconv_mm.datasets.checks import NUMBERS, location_of
from icconv_mm.datasets.reading import DatasetError
from icconv_mm.errors import short

Key = TypeVar('Key')


_CHUNK = 100  # compressed segmentations decoded at once: their numbers fit into a cache


# Compressed RLE: numbers in groups of five bits, each group a character from '0', the sixth bit set in all but
# the last group of a number. Seven groups exceed the pixels of any image.
_CODES, _LAST, _GROUPS = bytes(range(48, 112)), range(48, 80), 7


def segmentation_defect(segmentation: Any, height: int, width: int) -> str | None:
    """Returns the defect of a segmentation in an image of height x width pixels; None if it has none.

    Args:
        segmentation: Polygons ``[[x1, y1, x2, y2, x3, y3, ...], ...]``, or RLE: ``size``, height and width, and
            ``counts``, the lengths of the runs in pixels or their compressed form.
        height, width: Size of the image.
    """
    defect = first_defect([(None, segmentation, height, width)])
    return defect and defect[1]


def first_defect(entries: Iterable[tuple[Key, Any, int, int]]) -> tuple[Key, str] | None:
    """Returns the key and the defect of the first invalid segmentation; compressed ones are decoded in batches.

    Args:
        entries: A key, the segmentation, and height and width of its image.
    """
    compressed: list[tuple[Key, bytes, int, int]] = []
    for key, segmentation, height, width in entries:
        defect = _segmentation_defect(segmentation, height, width)
        if isinstance(defect, bytes):
            compressed.append((key, defect, height, width))
        elif defect is not None:
            return key, defect
        if len(compressed) == _CHUNK:
            if problem := _first_of_compressed(compressed):
                return problem
            compressed = []
    return _first_of_compressed(compressed)


def check_segmentations(content: Mapping[str, Any], path: str | Path, *, required: bool = False) -> None:
    """Raises DatasetError, naming file, image and annotation, if a segmentation does not fit its image.

    Args:
        content: Content of the annotation file, as :func:`icconv_mm.datasets.checks.check_coco_file` returns it,
            with sizes of images.
        path: The annotation file.
        required: Whether every annotation needs a segmentation, as for masks; else those without are skipped.
    """
    images = {image['id']: image for image in content['images']}

    def entries() -> Iterable[tuple[dict, Any, int, int]]:
        for annotation in content['annotations']:
            segmentation = annotation.get('segmentation')
            image = images.get(annotation['image_id'])
            if image and (required or segmentation):
                yield annotation, segmentation, image['height'], image['width']

    if problem := first_defect(entries()):
        annotation, defect = problem
        raise DatasetError(f'{location_of(annotation, images[annotation["image_id"]], path)}: {defect}')


def _segmentation_defect(segmentation: Any, height: int, width: int) -> str | bytes | None:
    """Returns the defect of a segmentation; or its compressed RLE as bytes, to be decoded and checked."""
    if not isinstance(segmentation, Mapping):
        return polygons_defect(segmentation, height, width)
    counts = segmentation.get('counts')
    if defect := _size_defect(segmentation, height, width):
        return defect
    if not isinstance(counts, (str, bytes)):
        return _counts_defect(counts, height, width)
    text = counts.encode(errors='replace') if isinstance(counts, str) else counts
    if not text or text.translate(None, _CODES) or text[-1] not in _LAST:
        return f"'counts' {counts!r:.40} are no compressed RLE"
    return text


def polygons_defect(polygons: Any, height: int, width: int) -> str | None:
    if not polygons:
        return 'no segmentation, which masks are made of'
    if not isinstance(polygons, list):
        return f"'segmentation' is {polygons!r:.40}, expected polygons or RLE"
    margin = max(height, width)  # beyond it lies an image of another size; pycocotools allocates memory for every pixel
    for polygon in polygons:
        if not isinstance(polygon, (list, tuple)) or not NUMBERS.issuperset(map(type, polygon)):
            return f'a polygon is {polygon!r:.40}, expected numbers [x1, y1, x2, y2, x3, y3, ...]'
        if (count := len(polygon)) % 2 or not count:
            return f'a polygon has {count} numbers, expected x and y of each point'
        if count > 2 * limits.POLYGON_POINTS:
            return f'a polygon has {count // 2} points, of which at most {limits.POLYGON_POINTS} are read'
        least, most = min(polygon), max(polygon)
        if least < -margin or most > 2 * margin or not math.isfinite(sum(polygon)):
            ends = ' to '.join(short(point, 20) if isinstance(point, int) else f'{point:g}' for point in (least, most))
            return f'a polygon goes from {ends} in an image of {width} x {height} pixels'
        if count * (most - least) > (longest := height * width + 16 * margin) and _length(polygon) > longest:
            return f'a polygon is longer than {longest} pixels, in an image of {width} x {height}'
    # Libraries read a first list of four numbers as a box, and skip later ones that are no polygons.
    if len(polygons[0]) < 6:
        return f'the first polygon has {len(polygons[0]) // 2} points, expected 3 or more'
    return None


def _length(polygon: list[float]) -> float:
    """Returns the length of a polygon's edge in pixels; pycocotools allocates memory for each."""
    points = np.asarray(polygon, float).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, 0)).max(1).sum())


def _size_defect(segmentation: Mapping, height: int, width: int) -> str | None:
    size = segmentation.get('size')
    if size is None:
        return "RLE without 'size', the height and width of the image"
    if not isinstance(size, (list, tuple)) or list(size) != [height, width]:
        return f'RLE of size {size!r:.40}, but the image has height {height} and width {width}'
    return None


def _counts_defect(counts: Any, height: int, width: int) -> str | None:
    if not isinstance(counts, list) or not set(map(type, counts)) <= {int}:
        return f"'counts' is {counts!r:.40}, expected numbers of pixels"
    return _total_defect(sum(counts), min(counts, default=0), height, width)


def _total_defect(total: int, least: int, height: int, width: int) -> str | None:
    if least < 0:
        return f'a run of {least} pixels'
    if total != height * width:
        return f'the runs have {total} pixels, but the image {height * width} ({width} x {height})'
    return None


def _first_of_compressed(entries: list[tuple[Key, bytes, int, int]]) -> tuple[Key, str] | None:
    if not entries:
        return None
    for (key, _, height, width), total, least in zip(entries, *_totals([text for _, text, _, _ in entries])):
        if defect := _total_defect(int(total), int(least), height, width):
            return key, defect
    return None


def _totals(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Returns sum and minimum of the runs of each compressed RLE; all characters must be valid."""
    # for 100,000 masks of 215 characters this takes 0.6 s, number by number 2.6 s; reading their file takes 0.5 s
    codes = np.frombuffer(b''.join(texts), np.uint8).astype(np.int64) - ord('0')
    last = np.flatnonzero(codes & 32 == 0)  # last group of each number
    first = np.concatenate([[0], last[:-1] + 1])
    locations = np.arange(len(codes)) - np.repeat(first, last + 1 - first)
    numbers = np.add.reduceat((codes & 31) << 5 * np.minimum(locations, _GROUPS), first)
    numbers -= (codes[last] >> 4 & 1) << 5 * np.minimum(locations[last] + 1, _GROUPS)  # two's complement
    starts = np.searchsorted(first, np.cumsum([0, *map(len, texts[:-1])]))  # index of the first number of each text
    index = np.arange(len(numbers)) - np.repeat(starts, np.diff(starts, append=len(numbers)))
    for parity in (0, 1):  # from the fourth on, a number is a difference from the second before it
        chain = np.flatnonzero((index % 2 == parity) & (index > 0))
        sums, begins = np.cumsum(numbers[chain]), np.flatnonzero(index[chain] <= 2)
        before = (sums - numbers[chain])[begins]
        numbers[chain] = sums - np.repeat(before, np.diff(begins, append=len(chain)))
    numbers[locations[last] >= _GROUPS] = -1
    return np.add.reduceat(numbers, starts), np.minimum.reduceat(numbers, starts)
