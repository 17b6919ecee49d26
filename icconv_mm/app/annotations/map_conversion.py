"""Segmentation maps, images with a class for every pixel: reads and checks them, and converts any values, palettes
and colours to the labels that networks train on.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from icconv_mm.app.annotations.dataset import AnnotatedImage, Converted, Dataset
from icconv_mm.app.annotations.map_values import EDGES, HALF, Values, is_soft, names_of_values, unnamed_value
from icconv_mm.datasets.checks import DatasetError
from icconv_mm.datasets.image_files import opened
from icconv_mm.datasets.seg_maps import IGNORED, LARGEST, read_seg_map
from icconv_mm.errors import InputError
from icconv_mm.files import atomic_write

_NEAR, _CHROMA = 32, 8  # from black or white, and between channels, in the masks that were JPEGs


def is_binary(pixels: np.ndarray) -> bool:
    """Returns whether an image [H, W] or [H, W, 3] is a mask of one object: black and white with soft edges."""
    grey = pixels if pixels.ndim == 2 else pixels[..., 1]
    is_grey = pixels.ndim == 2 or int(np.ptp(pixels.astype(np.int16), axis=-1).max()) <= _CHROMA
    return is_grey and float(((grey <= _NEAR) | (grey >= 255 - _NEAR)).mean()) >= 1 - EDGES


def read_class_ids(
    path: Path, segments: dict[int, int] | None = None, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Returns a segmentation map [H, W], or [H, W, 3] if it is coloured; a panoptic map as the class of every pixel.

    Raises:
        InputError: The file is missing, no image, or differs from ``size``, that of its image.
    """
    labels = read_seg_map(path, size)
    if segments is None:
        labels = labels[..., :3] if labels.ndim == 3 and labels.shape[2] == 4 else labels
        is_grey = labels.ndim == 3 and all((labels[..., 0] == labels[..., k]).all() for k in range(1, labels.shape[2]))
        return labels[..., 0] if is_grey else labels
    if labels.ndim != 3 or labels.shape[2] < 3:
        raise InputError(f'{path}: has one channel, expected the three of a panoptic map')
    ids = sum(labels[..., k].astype(np.int32) * 256**k for k in range(3))
    known_ids = np.array(sorted(segments), dtype=ids.dtype)
    if len(known_ids) == 0:
        return np.zeros_like(ids)
    location = np.searchsorted(known_ids, ids).clip(max=len(known_ids) - 1)
    classes = np.array([segments[number] for number in known_ids.tolist()], dtype=ids.dtype)
    return np.where(known_ids[location] == ids, classes[location], 0)


_SAMPLE = 200  # maps read before a training if classes have names; every map is checked when it is loaded
_FEW = 20  # maps whose palettes are inspected


def convert_seg_maps(
    dataset: Dataset,
    converted: Converted,
    images: list[AnnotatedImage],
    folder: Path,
    classes: Sequence[str] | None,
    ignore_index: set[int],
    thorough: bool,
) -> list[AnnotatedImage]:
    """Assigns a class to each value, and writes new maps unless networks can read them as they are."""
    is_sampled = bool(classes or dataset.seg_map_classes) and not thorough  # without names, all values are classes
    step = -(-len(images) // _SAMPLE) if is_sampled else 1
    read = partial(_read_map, dataset, by_palette=_is_by_palette(dataset, converted, images[::step]))
    pixels, maps, count = Counter(), Counter(), 0
    where: dict[int, Path] = {}
    good, plain = [], True
    for number, image in enumerate(images):
        if number % step == 0:
            if (labels := read(image)) is None:
                continue
            plain &= labels.dtype == np.uint8 and image.segments is None and not dataset.colors
            counts = np.bincount(labels.ravel())
            values = np.flatnonzero(counts).tolist()
            pixels.update(dict(zip(values, counts[values].tolist())))
            maps.update(values)
            count += 1
            where.update((value, image.seg_map) for value in values)
        good.append(image)
    if not good:
        return []
    if is_soft(pixels, dataset, classes):
        sharp, read = read, lambda image: _sharpened(sharp(image))
        pixels = Counter(
            {
                0: sum(n for v, n in pixels.items() if v < HALF),
                IGNORED: sum(n for v, n in pixels.items() if v >= HALF),
            }
        )
        where, plain = dict.fromkeys(pixels, good[0].seg_map), False
        converted.notes.append(
            f'segmentation maps have 0 and 255 with greys at the edges: {HALF} and more are the object'
        )
    values = Values(pixels, maps, count, where)
    names = names_of_values(dataset, converted, values, classes, ignore_index)
    converted.classes = list(names.values())
    total = sum(pixels[value] for value in names) or 1
    converted.counts = {name: pixels[value] / total for value, name in names.items()}
    if pixels[IGNORED] and IGNORED not in ignore_index | names.keys():
        converted.notes.append(
            f'label {IGNORED} is ignored: {pixels[IGNORED] / sum(pixels.values()):.1%} of the pixels'
        )
    there = [name for value, name in names.items() if pixels[value]]
    if step == 1 and len(there) < 2:
        held = f'label {", ".join(map(str, sorted(pixels)))}, of the classes {" ".join(there) or "none"} alone'
        raise DatasetError(f'{dataset.location}: segmentation maps hold {held}: there is nothing to tell apart')
    if not (plain and list(names) == list(range(len(names))) and set(pixels) <= {*names, IGNORED}):
        converted.notes.append(
            f'segmentation maps are written anew, {len(names)} classes from 0 and 255 for ignored pixels'
        )
        if len(names) > IGNORED:
            raise DatasetError(
                f'{dataset.location}: {len(names)} classes, and a map of one byte has room for {IGNORED}'
            )
        labels = {value: label for label, value in enumerate(names) if 0 <= value <= LARGEST}
        allowed = {*pixels, *ignore_index, *dataset.seg_map_classes, IGNORED}
        good = _write_maps(dataset, good, labels, allowed, folder / 'maps', converted.root, read)
    return good


def _sharpened(labels: np.ndarray | None) -> np.ndarray | None:
    """Returns 255 for pixels of at least half of the range, else 0."""
    return None if labels is None else np.where(labels >= HALF, IGNORED, 0).astype(np.uint8)


def _read_map(dataset: Dataset, image: AnnotatedImage, by_palette: bool) -> np.ndarray | None:
    """Returns the value of each pixel [H, W] of a map, 0 to 65535; None, with a warning, if it cannot be used."""
    try:
        labels = read_class_ids(image.seg_map, image.segments, image.size)
    except InputError as error:
        dataset.leave_out(image.seg_map, str(error), image.path, image.split)
        return None
    if by_palette and labels.ndim == 2 and (colors := _colors_of_palette(image.seg_map)) is not None:
        labels = np.asarray(colors)
    is_jpeg = image.seg_map.suffix.lower() in ('.jpg', '.jpeg')
    is_mask = is_jpeg and is_binary(labels)
    if is_mask:
        labels = _sharpened(labels if labels.ndim == 2 else labels[..., 1])
    channels, problem = labels.shape[2] if labels.ndim == 3 else 1, ''
    if is_jpeg and not is_mask:
        problem = 'a JPEG does not keep labels or colours, unless it is black and white: save it as PNG'
    elif channels > 1 and not dataset.colors:
        problem = f'{channels} channels, and no table (classes.txt, class_dict.csv) says what the colours mean'
    elif channels not in (1, 3):
        problem = f'{channels} channels, expected labels or the colours of the table'
    elif labels.dtype.kind not in 'ui':
        problem = f'pixels are {labels.dtype}, expected integer labels'
    elif labels.min() < 0 or labels.max() > LARGEST:
        problem = f'labels from {labels.min()} to {labels.max()}, expected 0 to {LARGEST}'
    if problem:
        dataset.leave_out(image.seg_map, problem, image.path, image.split)
        return None
    return _of_colors(labels, dataset.colors) if channels == 3 else labels


def _is_by_palette(dataset: Dataset, converted: Converted, images: Sequence[AnnotatedImage]) -> bool:
    """Returns whether palette colours, not indices, are the classes: most of the used colours are in the colour table.

    Other palettes are for display only.
    """
    if not dataset.colors:
        return False
    used: set[tuple[int, int, int]] = set()
    for image in images[:_FEW]:
        if (colored := _colors_of_palette(image.seg_map)) is not None:
            used |= {color for _, color in colored.getcolors(colored.width * colored.height)}
    if used and 2 * len(used & dataset.colors.keys()) <= len(used):
        converted.notes.append(
            'palettes of maps have other colours than the table: their numbers are taken for its rows'
        )
        return False
    return bool(used)


def _colors_of_palette(path: Path) -> Image.Image | None:
    """Returns a palette image converted to RGB; None if the file has no palette or is no image."""
    try:
        with opened(path) as image:
            return image.convert('RGB') if image.mode == 'P' else None
    except Exception:  # any decoder error: the reader of the map reports it
        return None


def _of_colors(image: np.ndarray, colors: dict[tuple[int, int, int], int]) -> np.ndarray:
    """Returns the value of each pixel [H, W] of a coloured map; 65535 if the table lacks its colour."""
    codes = image.astype(np.int32) @ np.array([65536, 256, 1])
    table = sorted((r * 65536 + g * 256 + b, value) for (r, g, b), value in colors.items())
    table_colors, values = np.array(table).T
    location = np.searchsorted(table_colors, codes).clip(max=len(table_colors) - 1)
    return np.where(table_colors[location] == codes, values[location], LARGEST)


def map_path(image: Path, taken: set[Path]) -> Path:
    """Returns where the map of an image is written: its name with the suffix .png, added where another image has it."""
    path = image.with_suffix('.png')
    path = image.with_name(f'{image.name}.png') if path in taken else path
    taken.add(path)
    return path


def _write_maps(
    dataset: Dataset,
    images: Sequence[AnnotatedImage],
    labels: dict[int, int],
    allowed: set[int],
    folder: Path,
    root: Path,
    read: Callable[[AnnotatedImage], np.ndarray | None],
) -> list[AnnotatedImage]:
    """Writes maps of one byte (the label of each value, 255 for others), and returns the images that have one.

    Args:
        dataset: Records a warning for unusable maps, and for values that are neither classes nor ``allowed``.
        images: All images.
        labels: The label of each value.
        allowed: Values that were checked before.
        folder: Receives the maps.
        root: The folder of all images.
        read: Returns the values of a map.
    """
    table = np.full(LARGEST + 1, IGNORED, dtype=np.uint8)
    table[list(labels)] = list(labels.values())
    written, taken = [], set()
    for image in images:
        if (values := read(image)) is None:
            continue
        for value in set(np.flatnonzero(np.bincount(values.ravel())).tolist()) - allowed:
            dataset.warn(image.seg_map, f'{unnamed_value(value)}: ignored in this map and those after it')
            allowed.add(value)
        location = map_path(folder / image.path.relative_to(root), taken)
        with atomic_write(location, is_flushed=False) as file:
            Image.fromarray(table[values]).save(file, 'PNG', compress_level=1)
        image.seg_map, image.segments = location.absolute(), None
        written.append(image)
    return written
