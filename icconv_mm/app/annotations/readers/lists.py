"""Reads split files, in ``ImageSets`` or elsewhere: ``train.txt``, ``val.txt``, ``test.txt``, ``trainval.txt``."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from icconv_mm.app.annotations.dataset import SPLITS, Dataset, held_out_first
from icconv_mm.app.annotations.images_on_disk import ByEnd, Files, as_path
from icconv_mm.datasets.reading import read_text
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_LIST = re.compile(r'(train_?val|train|val|test)\w*')


def listed(files: Files, kind: str, *, elsewhere: bool) -> list[tuple[str, str]]:
    """Returns split and line of each listed image; the split is '' if it is assigned later.

    Args:
        files: The files of a dataset.
        kind: The folder in ``ImageSets`` with the task's split files, used if it exists: ``'Main'`` or
            ``'Segmentation'``.
        elsewhere: Whether split files outside ``ImageSets`` count.
    """
    lists = {}
    for path in files.ending('.txt', '.lst'):
        name, is_in_sets = path.stem.lower(), 'ImageSets' in path.parts
        match = _LIST.fullmatch(name)
        if match and (match[1] == name if is_in_sets else elsewhere):  # aeroplane_train.txt lists one class only
            lists[path] = match[1]
    paths_of_kind = [path for path in lists if path.parent.name == kind] or lists
    return [
        (lists[path] if lists[path] in SPLITS else '', line.strip())
        for path in paths_of_kind
        for line in filter(str.strip, read_text(path).splitlines())
    ]


def splits_of(
    paths: Sequence[Path], lines: Sequence[tuple[str, str]], files: Files, dataset: Dataset
) -> dict[Path, str]:
    """Returns the split of each file, from the split files or else the folders; skipped files are not included.

    If split files list the training images, files that none of them lists are skipped.
    """
    claims = _claims(paths, lines)
    if lines and not claims:
        dataset.warn(
            files.root, 'its lists (train.txt, val.txt, ...) name none of its images: nothing is split by them'
        )
    say_training = any(split_names & {'train', ''} for split_names in claims.values())
    splits = {}
    for path in paths:
        named_splits, of_folder = claims.get(path, set()), files.split_of_folders(path)
        if not named_splits and say_training and not of_folder:
            dataset.warn(path, 'is in none of the lists (train.txt, val.txt, ...)', is_left_out=True)
            continue
        splits[path] = held_out_first(named_splits or {''}) or of_folder
        if len(named_splits - {''}) > 1:
            dataset.warn(
                path, f'is in the lists of {" and ".join(sorted(named_splits - {""}))}: taken for {splits[path]}'
            )
    return splits


def _claims(paths: Sequence[Path], lines: Iterable[tuple[str, str]]) -> dict[Path, set[str]]:
    """Returns the splits that list each file: of files with one name, the one sharing most of the listed path."""
    by_name = defaultdict(list)
    for path in paths:
        for name in {path.name, path.stem}:
            by_name[name].append(path)
    ends: dict[str, ByEnd] = {}
    claimed = set()
    for split, line in lines:
        for entry in (as_path(line.split()[0]), as_path(line)):  # after a space follows a label or the rest of the name
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
