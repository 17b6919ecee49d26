"""Lists that split a set, in ``ImageSets`` or elsewhere: ``train.txt``, ``val.txt``, ``test.txt``, ``trainval.txt``."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from icconv_mm.annotations.dataset import SPLITS, Dataset, held_out_first
from icconv_mm.annotations.images_on_disk import ByEnd, Files, as_path
from icconv_mm.annotations.reading import read_text
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_LIST = re.compile(r'(train_?val|train|val|test)\w*')


def listed(files: Files, kind: str, *, elsewhere: bool) -> list[tuple[str, str]]:
    """Split and line of each image that is listed; the split is '' where it is yet to be chosen.

    Args:
        files: A set.
        kind: The folder of ``ImageSets`` with the lists for the task, if it is there: ``'Main'`` or ``'Segmentation'``.
        elsewhere: Whether lists outside ``ImageSets`` count.
    """
    lists = {}
    for path in files.ending('.txt', '.lst'):
        name, is_in_sets = path.stem.lower(), 'ImageSets' in path.parts
        match = _LIST.fullmatch(name)
        if match and (match[1] == name if is_in_sets else elsewhere):  # aeroplane_train.txt is of a class
            lists[path] = match[1]
    own = [path for path in lists if path.parent.name == kind] or lists
    return [
        (lists[path] if lists[path] in SPLITS else '', line.strip())
        for path in own
        for line in filter(str.strip, read_text(path).splitlines())
    ]


def splits_of(
    paths: Sequence[Path], lines: Sequence[tuple[str, str]], files: Files, dataset: Dataset
) -> dict[Path, str]:
    """The split of each file, as the lists or else the folders have it; files that are left out have none.

    Where lists say what is to train with, those are left out that are in none of them.
    """
    claims = _claims(paths, lines)
    if lines and not claims:
        dataset.warn(
            files.root, 'its lists (train.txt, val.txt, ...) name none of its images: nothing is split by them'
        )
    say_training = any(own & {'train', ''} for own in claims.values())
    splits = {}
    for path in paths:
        own, of_folder = claims.get(path, set()), files.split_of(path)
        if not own and say_training and not of_folder:
            dataset.warn(path, 'is in none of the lists (train.txt, val.txt, ...): left out')
            continue
        splits[path] = held_out_first(own or {''}) or of_folder
        if len(own - {''}) > 1:
            dataset.warn(path, f'is in the lists of {" and ".join(sorted(own - {""}))}: taken for {splits[path]}')
    return splits


def _claims(paths: Sequence[Path], lines: Iterable[tuple[str, str]]) -> dict[Path, set[str]]:
    """The splits that lists have each file in: of files of one name, the one with the most of the path in the list."""
    by_name = defaultdict(list)
    for path in paths:
        for name in {path.name, path.stem}:
            by_name[name].append(path)
    ends: dict[str, ByEnd] = {}
    claimed = set()
    for split, line in lines:
        for entry in (as_path(line.split()[0]), as_path(line)):  # what follows a space is a label, or of the name
            stem = entry.stem if entry.suffix.lower() in IMAGE_SUFFIXES else ''
            if (name := entry.name if entry.name in by_name else stem) in by_name:
                if len(by_name[name]) > 1 and name not in ends:
                    ends[name] = ByEnd(by_name[name], of_folders=True)
                claimed.add((name, ends[name].end_of(entry.parent) if name in ends else (), split))
                break
    claims: dict[Path, set[str]] = defaultdict(set)
    for name, end, split in claimed:
        for path in ends[name].paths[end] if name in ends else by_name[name]:
            claims[path].add(split)
    return claims
