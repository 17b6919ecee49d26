"""Segmentation maps of any values, palettes and colours to those that networks train on."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from icconv_mm.annotations.checks import DatasetError
from icconv_mm.annotations.converted import Converted
from icconv_mm.annotations.dataset import AnnotatedImage, Dataset
from icconv_mm.annotations.images_on_disk import IMAGE_FORMATS
from icconv_mm.annotations.polygons import read_class_ids
from icconv_mm.annotations.seg_maps import IGNORED
from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError
from icconv_mm.files import atomic_write

_IGNORED_NAMES = ('void', 'unlabeled', 'unlabelled', 'ignore', 'ignored', 'unknown')
_SAMPLE = 200  # segmentation maps with names that are read before a training; every one is checked as it is loaded
_FEW = 20  # segmentation maps whose palettes are looked at
_LARGEST = 65535  # value of a segmentation map
_STRAY = 1e-3  # of the pixels: a label that nothing names, beyond a gap in the numbers


def convert_seg_maps(
    dataset: Dataset,
    made: Converted,
    images: list[AnnotatedImage],
    folder: Path,
    classes: Sequence[str] | None,
    ignore_index: set[int],
    thorough: bool,
) -> list[AnnotatedImage]:
    """Settle which value is which class; write maps anew unless they are what networks read."""
    is_sampled = bool(classes or dataset.seg_map_classes) and not thorough  # without names, the values are the classes
    step = -(-len(images) // _SAMPLE) if is_sampled else 1
    read = partial(_read_map, dataset, by_palette=_is_by_palette(dataset, made, images[::step]))
    pixels: Counter[int] = Counter()
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
            where.update((value, image.seg_map) for value in values)
        good.append(image)
    if not good:
        return []
    names = _names_of_values(dataset, made, pixels, where, classes, ignore_index)
    made.classes = list(names.values())
    total = sum(pixels[value] for value in names) or 1
    made.counts = {name: pixels[value] / total for value, name in names.items()}
    if pixels[IGNORED] and IGNORED not in ignore_index | names.keys():
        made.notes.append(f'label {IGNORED} is ignored: {pixels[IGNORED] / sum(pixels.values()):.1%} of the pixels')
    there = [name for value, name in names.items() if pixels[value]]
    if step == 1 and len(there) < 2:
        held = f'label {", ".join(map(str, sorted(pixels)))}, of the classes {" ".join(there) or "none"} alone'
        raise DatasetError(f'{dataset.location}: segmentation maps hold {held}: there is nothing to tell apart')
    if not (plain and list(names) == list(range(len(names))) and set(pixels) <= {*names, IGNORED}):
        made.notes.append(f'segmentation maps are written anew, {len(names)} classes from 0 and 255 for void')
        if len(names) > IGNORED:
            raise DatasetError(
                f'{dataset.location}: {len(names)} classes, and a map of one byte has room for {IGNORED}'
            )
        labels = {value: label for label, value in enumerate(names) if 0 <= value <= _LARGEST}
        known = {*pixels, *ignore_index, *dataset.seg_map_classes, IGNORED}
        good = _write_maps(dataset, good, labels, known, folder / 'maps', made.root, read)
    return good


def _read_map(dataset: Dataset, image: AnnotatedImage, by_palette: bool) -> np.ndarray | None:
    """The value of each pixel [H, W] of a map, 0 to 65535; None, and a word, where it cannot be used."""
    try:
        labels = read_class_ids(image.seg_map, image.segments, image.size)
    except InputError as error:
        dataset.leave_out(image.seg_map, str(error), image.path, image.split)
        return None
    if by_palette and labels.ndim == 2 and (colors := _colors_of_palette(image.seg_map)) is not None:
        labels = np.asarray(colors)
    channels = labels.shape[2] if labels.ndim == 3 else 1
    problem = ''
    if channels > 1 and not dataset.colors:
        problem = f'{channels} channels, and no table (classes.txt, class_dict.csv) says what the colours mean'
    elif channels not in (1, 3):
        problem = f'{channels} channels, expected labels or the colours of the table'
    elif labels.dtype.kind not in 'ui':
        problem = f'pixels are {labels.dtype}, expected integer labels'
    elif labels.min() < 0 or labels.max() > _LARGEST:
        problem = f'labels from {labels.min()} to {labels.max()}, expected 0 to {_LARGEST}'
    if problem:
        dataset.leave_out(image.seg_map, problem, image.path, image.split)
        return None
    return _of_colors(labels, dataset.colors) if channels == 3 else labels


def _is_by_palette(dataset: Dataset, made: Converted, images: Sequence[AnnotatedImage]) -> bool:
    """Whether palettes of maps, and not numbers, say what the table of colours names: most of their colours are in it.

    Other palettes are for the eye alone.
    """
    if not dataset.colors:
        return False
    used: set[tuple[int, int, int]] = set()
    for image in images[:_FEW]:
        if (colored := _colors_of_palette(image.seg_map)) is not None:
            used |= {color for _, color in colored.getcolors(colored.width * colored.height)}
    if used and 2 * len(used & dataset.colors.keys()) <= len(used):
        made.notes.append('palettes of maps have other colours than the table: their numbers are taken for its rows')
        return False
    return bool(used)


def _colors_of_palette(path: Path) -> Image.Image | None:
    """An image with a palette in its colours; None for any other, and for what is no image."""
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            return image.convert('RGB') if image.mode == 'P' else None
    except Exception:  # whatever a decoder raises: who reads the map says it
        return None


def _of_colors(image: np.ndarray, colors: dict[tuple[int, int, int], int]) -> np.ndarray:
    """The value of each pixel [H, W] of an image in colours; 65535 where no table has its colour."""
    codes = image.astype(np.int32) @ np.array([65536, 256, 1])
    table = sorted((r * 65536 + g * 256 + b, value) for (r, g, b), value in colors.items())
    known, values = np.array(table).T
    location = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[location] == codes, values[location], _LARGEST)


def _names_of_values(
    dataset: Dataset,
    made: Converted,
    pixels: Counter[int],
    where: dict[int, Path],
    classes: Sequence[str] | None,
    ignore_index: set[int],
) -> dict[int, str]:
    """The name of each value that is a class, in the order of labels; ``void`` grows by those that are called so."""
    values = sorted(set(pixels) - ignore_index)
    known = dict(dataset.seg_map_classes) if classes is None or dataset.seg_map_classes else dict(enumerate(classes))
    known = {value: name for value, name in known.items() if value not in ignore_index}
    if set(values) == {0, IGNORED} and known.keys() in (set(), {0, 1}):
        known = {0: known.get(0, 'background'), IGNORED: known.get(1, 'foreground')}
        made.notes.append(
            f'segmentation maps have 0 and 255 alone: 255 is taken for the object ({known[IGNORED]}), not for void'
        )
    if known:
        for value in [value for value, name in known.items() if name.lower() in _IGNORED_NAMES]:
            made.notes.append(f'{known[value]!r}, value {value}, is ignored: not learned')
            del known[value]
            ignore_index.add(value)
        for value in values:
            if value not in known and value not in ignore_index | {IGNORED}:
                dataset.warn(where[value], f'{_unnamed(value)}: {pixels[value]} pixels in all maps are void')
        if classes and dataset.seg_map_classes:
            chosen = require_known(classes, known.values(), 'classes: no class')
            known = {value: name for name in chosen for value in known if known[value] == name}
        return known
    values = [value for value in values if value != IGNORED]
    first_gap = next((i for i, value in enumerate(values) if value != values[0] + i), len(values))
    total = sum(pixels.values())
    for value in values[first_gap:]:
        if pixels[value] < _STRAY * total:
            dataset.warn(where[value], f'label {value}, beyond a gap in the labels: {pixels[value]} pixels are void')
            values.remove(value)
    span = f'{values[0]} to {values[-1]}' if values else 'in them'
    made.notes.append(
        f'nothing names the labels {span}: name them by --classes, and what means nothing by --ignore-index'
    )
    return {value: f'class_{value}' for value in values}


def _unnamed(value: int) -> str:
    return 'a colour of no class' if value == _LARGEST else f'label {value}, which has no name'


def _write_maps(
    dataset: Dataset,
    images: Sequence[AnnotatedImage],
    labels: dict[int, int],
    known: set[int],
    folder: Path,
    root: Path,
    read: Callable[[AnnotatedImage], np.ndarray | None],
) -> list[AnnotatedImage]:
    """Maps of one byte: the label of each value, 255 for the others; gives the images that have one.

    Args:
        dataset: Takes down maps that cannot be used, and values that are neither classes nor ``known``.
        images: All images.
        labels: The label of each value.
        known: Values that were looked at before.
        folder: Gets the maps.
        root: The folder of all images.
        read: Gives the values of a map.
    """
    table = np.full(_LARGEST + 1, IGNORED, dtype=np.uint8)
    table[list(labels)] = list(labels.values())
    written = []
    for image in images:
        if (values := read(image)) is None:
            continue
        for value in set(np.flatnonzero(np.bincount(values.ravel())).tolist()) - known:
            dataset.warn(image.seg_map, f'{_unnamed(value)}: void in this map and those after it')
            known.add(value)
        location = (folder / image.path.relative_to(root)).with_suffix('.png')
        with atomic_write(location, is_flushed=False) as file:
            Image.fromarray(table[values]).save(file, 'PNG', compress_level=1)
        image.seg_map = location.absolute()
        written.append(image)
    return written
