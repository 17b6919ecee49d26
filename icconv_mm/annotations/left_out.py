"""What was left out of a set because it is damaged: how much of it may be, and all warnings as JSON."""

from collections.abc import Iterable
from pathlib import Path

from icconv_mm.annotations.dataset import AnnotatedImage, Dataset
from icconv_mm.annotations.reading import DatasetError
from icconv_mm.errors import printable
from icconv_mm.files import write_json

_SHARE, _FEW = 0.1, 3  # of the images; so many may lose annotations in any set
_LISTED = 20  # problems in the error


def check_left_out(dataset: Dataset) -> None:
    """Raise DatasetError if too much of a set was left out.

    That is a whole split, or annotations of more than a tenth of the images and more than three; with ``strict``
    anything.
    """
    left_out = [f'{file}: {what}' for file, what in dataset.warnings if what.endswith('left out')]
    if dataset.strict and (left_out or dataset.missing):
        raise DatasetError(f'strict: {left_out[0] if left_out else f"{dataset.missing[0]}: the image is not there"}')
    kept = {image.split for image in dataset.images.values() if _has_annotations(image)}
    for split in sorted(set(dataset.lost.values()) - kept - {''}):
        first = next(key for key, own in dataset.lost.items() if own == split)
        raise DatasetError(f'{dataset.location}: nothing is left of the split {split}{_list(left_out, first)}')
    total = len({*map(str, dataset.images), *dataset.lost})
    if len(dataset.lost) > max(_SHARE * total, _FEW):
        what = f'{len(dataset.lost)} of {total} images lost annotations, more than a tenth'
        raise DatasetError(f'{dataset.location}: {what}{_list(left_out)}')


def _has_annotations(image: AnnotatedImage) -> bool:
    return not image.problem and bool(image.annotations or image.seg_map or image.label)


def _list(lines: list[str], first: str = '') -> str:
    """Lines that follow a sentence; those with ``first`` come first."""
    lines = [printable(line) for line in sorted(lines, key=lambda line: first not in line)]
    more = [f'... and {len(lines) - _LISTED} more'] if len(lines) > _LISTED else []
    return '\n  '.join([':', *lines[:_LISTED], *more]) if lines else ''


def write_warnings(path: Path, datasets: Iterable[Dataset]) -> None:
    """Write a JSON list of all that is wrong with some sets: ``file``, ``problem`` and whether it was ``left_out``."""
    made = []
    for each in datasets:
        made += [dict(file=file, problem=what, left_out=what.endswith('left out')) for file, what in each.warnings]
        made += [dict(file=name, problem='the image is not there', left_out=True) for name in each.missing]
    write_json(path, made, indent=1)
