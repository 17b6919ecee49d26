"""Label maps of any values, palettes and colours to those that networks train on."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from icconv_mm.annotations.checks import DatasetError
from icconv_mm.annotations.converted import Prepared
from icconv_mm.annotations.dataset import Found, Picture
from icconv_mm.annotations.images_on_disk import IMAGE_FORMATS
from icconv_mm.annotations.polygons import class_map
from icconv_mm.annotations.seg_maps import IGNORED
from icconv_mm.arguments import require_known
from icconv_mm.errors import InputError
from icconv_mm.files import whole_file

_VOID_NAMES = ('void', 'unlabeled', 'unlabelled', 'ignore', 'ignored', 'unknown')
_SAMPLE = 200  # label maps with names that are read before a training; every one is checked as it is loaded
_FEW = 20  # label maps whose palettes are looked at
_LARGEST = 65535  # value of a label map
_STRAY = 1e-3  # of the pixels: a label that nothing names, beyond a gap in the numbers


def prepare_maps(
    found: Found,
    made: Prepared,
    pictures: list[Picture],
    folder: Path,
    classes: Sequence[str] | None,
    void: set[int],
    thorough: bool,
) -> list[Picture]:
    """Settle which value is which class; write maps anew unless they are what networks read."""
    is_sampled = bool(classes or found.map_names) and not thorough  # without names, the values are the classes
    step = -(-len(pictures) // _SAMPLE) if is_sampled else 1
    read = partial(_read_map, found, by_palette=_is_by_palette(found, made, pictures[::step]))
    pixels: Counter[int] = Counter()
    where: dict[int, Path] = {}
    good, plain = [], True
    for number, picture in enumerate(pictures):
        if number % step == 0:
            if (labels := read(picture)) is None:
                continue
            plain &= labels.dtype == np.uint8 and picture.segments is None and not found.colors
            counts = np.bincount(labels.ravel())
            values = np.flatnonzero(counts).tolist()
            pixels.update(dict(zip(values, counts[values].tolist())))
            where.update((value, picture.label_map) for value in values)
        good.append(picture)
    if not good:
        return []
    names = _names_of_values(found, made, pixels, where, classes, void)
    made.classes = list(names.values())
    total = sum(pixels[value] for value in names) or 1
    made.counts = {name: pixels[value] / total for value, name in names.items()}
    if pixels[IGNORED] and IGNORED not in void | names.keys():
        made.notes.append(f'label {IGNORED} is void: {pixels[IGNORED] / sum(pixels.values()):.1%} of the pixels')
    there = [name for value, name in names.items() if pixels[value]]
    if step == 1 and len(there) < 2:
        held = f'label {", ".join(map(str, sorted(pixels)))}, of the classes {" ".join(there) or "none"} alone'
        raise DatasetError(f'{found.place}: label maps hold {held}: there is nothing to tell apart')
    if not (plain and list(names) == list(range(len(names))) and set(pixels) <= {*names, IGNORED}):
        made.notes.append(f'label maps are written anew, {len(names)} classes from 0 and 255 for void')
        if len(names) > IGNORED:
            raise DatasetError(f'{found.place}: {len(names)} classes, and a map of one byte has room for {IGNORED}')
        labels = {value: label for label, value in enumerate(names) if 0 <= value <= _LARGEST}
        known = {*pixels, *void, *found.map_names, IGNORED}
        good = _write_maps(found, good, labels, known, folder / 'maps', made.root, read)
    return good


def _read_map(found: Found, picture: Picture, by_palette: bool) -> np.ndarray | None:
    """The value of each pixel [H, W] of a map, 0 to 65535; None, and a word, where it cannot be used."""
    try:
        labels = class_map(picture.label_map, picture.segments, picture.size)
    except InputError as error:
        found.leave_out(picture.label_map, str(error), picture.path, picture.split)
        return None
    if by_palette and labels.ndim == 2 and (colors := _colors_of_palette(picture.label_map)) is not None:
        labels = np.asarray(colors)
    channels = labels.shape[2] if labels.ndim == 3 else 1
    problem = ''
    if channels > 1 and not found.colors:
        problem = f'{channels} channels, and no table (classes.txt, class_dict.csv) says what the colours mean'
    elif channels not in (1, 3):
        problem = f'{channels} channels, expected labels or the colours of the table'
    elif labels.dtype.kind not in 'ui':
        problem = f'pixels are {labels.dtype}, expected integer labels'
    elif labels.min() < 0 or labels.max() > _LARGEST:
        problem = f'labels from {labels.min()} to {labels.max()}, expected 0 to {_LARGEST}'
    if problem:
        found.leave_out(picture.label_map, problem, picture.path, picture.split)
        return None
    return _of_colors(labels, found.colors) if channels == 3 else labels


def _is_by_palette(found: Found, made: Prepared, pictures: Sequence[Picture]) -> bool:
    """Whether palettes of maps, and not numbers, say what the table of colours names: most of their colours are in it.

    Other palettes are for the eye alone.
    """
    if not found.colors:
        return False
    used: set[tuple[int, int, int]] = set()
    for picture in pictures[:_FEW]:
        if (image := _colors_of_palette(picture.label_map)) is not None:
            used |= {color for _, color in image.getcolors(image.width * image.height)}
    if used and 2 * len(used & found.colors.keys()) <= len(used):
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
    place = np.searchsorted(known, codes).clip(max=len(known) - 1)
    return np.where(known[place] == codes, values[place], _LARGEST)


def _names_of_values(
    found: Found,
    made: Prepared,
    pixels: Counter[int],
    where: dict[int, Path],
    classes: Sequence[str] | None,
    void: set[int],
) -> dict[int, str]:
    """The name of each value that is a class, in the order of labels; ``void`` grows by those that are called so."""
    values = sorted(set(pixels) - void)
    known = dict(found.map_names) if classes is None or found.map_names else dict(enumerate(classes))
    known = {value: name for value, name in known.items() if value not in void}
    if set(values) == {0, IGNORED} and known.keys() in (set(), {0, 1}):
        known = {0: known.get(0, 'background'), IGNORED: known.get(1, 'foreground')}
        made.notes.append(
            f'label maps have 0 and 255 alone: 255 is taken for the thing ({known[IGNORED]}), not for void'
        )
    if known:
        for value in [value for value, name in known.items() if name.lower() in _VOID_NAMES]:
            made.notes.append(f'{known[value]!r}, value {value}, is void: not learned')
            del known[value]
            void.add(value)
        for value in values:
            if value not in known and value not in void | {IGNORED}:
                found.wrong(where[value], f'{_unnamed(value)}: {pixels[value]} pixels in all maps are void')
        if classes and found.map_names:
            chosen = require_known(classes, known.values(), 'classes: no class')
            known = {value: name for name in chosen for value in known if known[value] == name}
        return known
    values = [value for value in values if value != IGNORED]
    first_gap = next((i for i, value in enumerate(values) if value != values[0] + i), len(values))
    total = sum(pixels.values())
    for value in values[first_gap:]:
        if pixels[value] < _STRAY * total:
            found.wrong(where[value], f'label {value}, beyond a gap in the labels: {pixels[value]} pixels are void')
            values.remove(value)
    span = f'{values[0]} to {values[-1]}' if values else 'in them'
    made.notes.append(f'nothing names the labels {span}: name them by --classes, and what means nothing by --void')
    return {value: f'class_{value}' for value in values}


def _unnamed(value: int) -> str:
    return 'a colour of no class' if value == _LARGEST else f'label {value}, which has no name'


def _write_maps(
    found: Found,
    pictures: Sequence[Picture],
    labels: dict[int, int],
    known: set[int],
    folder: Path,
    root: Path,
    read: Callable[[Picture], np.ndarray | None],
) -> list[Picture]:
    """Maps of one byte: the label of each value, 255 for the others; gives the pictures that have one.

    Args:
        found: Takes down maps that cannot be used, and values that are neither classes nor ``known``.
        pictures: All pictures.
        labels: The label of each value.
        known: Values that were looked at before.
        folder: Gets the maps.
        root: The folder of all pictures.
        read: Gives the values of a map.
    """
    table = np.full(_LARGEST + 1, IGNORED, dtype=np.uint8)
    table[list(labels)] = list(labels.values())
    written = []
    for picture in pictures:
        if (values := read(picture)) is None:
            continue
        for value in set(np.flatnonzero(np.bincount(values.ravel())).tolist()) - known:
            found.wrong(picture.label_map, f'{_unnamed(value)}: void in this map and those after it')
            known.add(value)
        place = (folder / picture.path.relative_to(root)).with_suffix('.png')
        with whole_file(place, is_flushed=False) as file:
            Image.fromarray(table[values]).save(file, 'PNG', compress_level=1)
        picture.label_map = place.absolute()
        written.append(picture)
    return written
