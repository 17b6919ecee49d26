"""Decides what each value of segmentation maps is: a class and its name, or ignored."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from icconv_mm.app.annotations.dataset import Converted, Dataset
from icconv_mm.arguments import require_known
from icconv_mm.datasets.seg_maps import IGNORED, LARGEST

HALF = 128  # of a mask with soft edges, from here on a pixel is the object's
EDGES = 0.1  # most pixels of soft edges in a mask of one object
_IGNORED_NAMES = ('void', 'unlabeled', 'unlabelled', 'ignore', 'ignored', 'unknown')
_RARE_MAPS, _RARE = 0.25, 0.01  # share of the maps and of the pixels below which a value is rare
_STRAY = 1e-3  # share of the pixels below which an unnamed label beyond a gap in the numbers is ignored


class Values(NamedTuple):
    """The values of segmentation maps: pixels and maps that have each, number of maps, and a map with each value."""

    pixels: Counter[int]
    maps: Counter[int]
    count: int
    where: dict[int, Path]

    def is_rare(self, value: int) -> bool:
        """Returns whether few maps and few pixels have a value, as remnants of another annotation."""
        total = sum(self.pixels.values())
        return self.maps[value] < _RARE_MAPS * self.count and self.pixels[value] < _RARE * total


def is_soft(pixels: Counter[int], dataset: Dataset, classes: Sequence[str] | None) -> bool:
    """Returns whether maps are masks of one object with soft edges, as resized ones or those that were JPEGs."""
    names = dataset.seg_map_classes or dict(enumerate(classes or ()))
    greys = {value for value in pixels if 0 < value < IGNORED}
    is_spread = len(greys) > 1 and min(greys) < HALF <= max(greys)  # labels of several classes are small numbers
    share = (pixels[0] + pixels[IGNORED]) / sum(pixels.values())
    return (
        is_spread and names.keys() in (set(), {0, 1}) and min(pixels[0], pixels[IGNORED]) > 0 and share > 1 - 2 * EDGES
    )


def names_of_values(
    dataset: Dataset, converted: Converted, values: Values, classes: Sequence[str] | None, ignore_index: set[int]
) -> dict[int, str]:
    """Returns the name of each value that is a class, by label; adds values with ignored names to ``ignore_index``."""
    there = sorted(set(values.pixels) - ignore_index)
    names = dict(dataset.seg_map_classes) if classes is None or dataset.seg_map_classes else dict(enumerate(classes))
    names = {value: name for value, name in names.items() if value not in ignore_index}
    is_named = bool(names)
    if LARGEST in there and len(there) > 2 and not names:
        share = values.pixels[LARGEST] / sum(values.pixels.values())
        converted.notes.append(f'label {LARGEST}, the last of 16 bits, is ignored: {share:.1%} of the pixels')
        ignore_index.add(LARGEST)
        there.remove(LARGEST)
    mask = _mask_of_one_object(values, there, names)
    if mask:
        names = mask
        alone = 'alone' if len(there) == 2 else 'in all maps, and others in few'
        converted.notes.append(
            f'segmentation maps have {there[0]} and 255 {alone}: 255 is the object ({names[IGNORED]}), not ignored'
        )
    if not is_named:
        return names | _numbered(dataset, converted, values, [value for value in there if value != IGNORED], names)
    for value in [value for value, name in names.items() if name.lower() in _IGNORED_NAMES]:
        converted.notes.append(f'{names[value]!r}, value {value}, is ignored: not learned')
        del names[value]
        ignore_index.add(value)
    for value in there:
        if value not in names and value not in ignore_index | {IGNORED}:
            what = f'{unnamed_value(value)}: {values.pixels[value]} pixels in all maps are ignored'
            dataset.warn(values.where[value], what)
    if classes and dataset.seg_map_classes:
        chosen = require_known(classes, names.values(), 'classes: no class')
        names = {value: name for name in chosen for value in names if names[value] == name}
    return names


def _mask_of_one_object(values: Values, there: Sequence[int], names: Mapping[int, str]) -> dict[int, str]:
    """Returns the names of the background and of 255, where 255 can only be the object; else an empty dict.

    Beside it is 0 alone; or 255 is in every map, and all other values but one are rare and have no name.
    """
    others = [value for value in there if value != IGNORED]
    usual = [value for value in others if value in names or not values.is_rare(value)]
    is_mask = others == [0] or (values.maps[IGNORED] == values.count and len(usual) == 1)
    if IGNORED not in there or not is_mask or names.keys() not in (set(), {0, 1}) or (names and usual != [0]):
        return {}
    background = usual[0] if usual else 0
    name = 'background' if background == 0 else f'class_{background}'
    return {background: names.get(0, name), IGNORED: names.get(1, 'foreground')}


def _numbered(
    dataset: Dataset, converted: Converted, values: Values, unnamed: Sequence[int], named_values: Mapping[int, str]
) -> dict[int, str]:
    """Returns names with the number of each value but the known; a few pixels beyond a gap in the numbers are ignored.

    A rare value is learned with a warning.
    """
    first_gap = next((i for i, value in enumerate(unnamed) if value != unnamed[0] + i), len(unnamed))
    total = sum(values.pixels.values())
    names = {}
    for i, value in enumerate(unnamed):
        if i >= first_gap and values.pixels[value] < _STRAY * total and value not in named_values:
            what = f'label {value}, beyond a gap in the labels: {values.pixels[value]} pixels are ignored'
            dataset.warn(values.where[value], what)
        elif value not in named_values:
            names[value] = f'class_{value}'
    for value, name in names.items():
        if values.is_rare(value):
            share = f'{values.maps[value]} of {values.count} maps and {values.pixels[value] / total:.2%} of the pixels'
            what = f'is learned as {name}; if it means nothing, set --ignore-index {value}'
            dataset.warn(values.where[value], f'label {value}, in {share}, {what}')
    if not named_values:
        span = f'{min(names)} to {max(names)}' if names else 'in them'
        how = 'name them by --classes, and what means nothing by --ignore-index'
        converted.notes.append(f'nothing names the labels {span}: {how}')
    return names


def unnamed_value(value: int) -> str:
    """Returns what a value of no class is, for a warning."""
    return 'a colour of no class' if value == LARGEST else f'label {value}, which has no name'
