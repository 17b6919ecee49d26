"""Finds images of equal content, also under other names, in a dataset."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from icconv_mm.app.annotations.dataset import AnnotatedImage, Converted, Dataset
from icconv_mm.datasets.reading import head


def _equal_images(images: Sequence[AnnotatedImage]) -> list[list[AnnotatedImage]]:
    """Returns the groups of images of equal content; whole files are read only if sizes and beginnings are equal."""
    groups = [list(images)]
    for key in (
        lambda image: image.path.stat().st_size,
        lambda image: head(image.path),
        lambda image: hashlib.sha256(image.path.read_bytes()).digest(),
    ):
        by_key: dict[Any, list[AnnotatedImage]] = defaultdict(list)
        for number, group in enumerate(groups):
            for image in group:
                by_key[number, key(image)].append(image)
        groups = [group for group in by_key.values() if len(group) > 1]
    return groups


def say_duplicates(dataset: Dataset, converted: Converted, images: Sequence[AnnotatedImage], thorough: bool) -> None:
    """Adds a note if splits share images; if ``thorough``, records a warning for each group of equal images."""
    groups = _equal_images(images)
    shared = [same for same in groups if len({image.split for image in same}) > 1]
    if shared:
        names = ' and '.join(str(image.path) for image in shared[0][:2])
        what = f'images in several splits under other names: {len(shared)}, the first: {names}'
        converted.notes.append(f'{what}; the evaluation is too good')
    for same in groups if thorough else ():
        splits = sorted({image.split for image in same})
        others = ', '.join(str(image.path) for image in same[1:])
        across = f'the splits {" and ".join(splits)} share it' if len(splits) > 1 else 'of the same split'
        dataset.warn(same[0].path, f'has the content of {others}: {across}')
