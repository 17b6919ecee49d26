"""Reads classification datasets with a folder for each class."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from icconv_mm.app.annotations.dataset import Dataset
from icconv_mm.app.annotations.images_on_disk import Files, split_of
from icconv_mm_runtime.images import IMAGE_SUFFIXES


def class_folder_sources(files: Files) -> Iterator[tuple]:
    """Yields a source if two or more sibling folders contain images, inside folders of splits or not."""
    groups: dict[str, list[Path]] = {}
    for folder in files.by_folder:
        if folder != files.root and files.has_images(folder):
            first, *below = folder.relative_to(files.root).parts
            groups.setdefault(below[0] if split_of(first) and below else first, []).append(folder)
    unlabelled = [folder for name in list(groups) if split_of(name) for folder in groups.pop(name)]
    are_split = any(
        split_of(folder.relative_to(files.root).parts[0]) for folders in groups.values() for folder in folders
    )
    if len(groups) > 1 and (are_split or not unlabelled):
        yield 'folders of classes', files.root, partial(_read_folders, groups, unlabelled, files)


def _read_folders(groups: dict[str, list[Path]], unlabelled: list[Path], files: Files) -> Dataset:
    dataset = Dataset('folders of classes', files.root)
    for folder in unlabelled:
        dataset.warn(folder, 'its images are in no folder of a class', is_left_out=True)
    for name, folders in sorted(groups.items()):
        if not name.strip():
            dataset.warn(folders[0], 'has a blank name, which would be that of a class', is_left_out=True)
            continue
        for folder in folders:
            for file in files.by_folder[folder]:
                if file.lower().endswith(IMAGE_SUFFIXES):
                    first = folder.relative_to(files.root).parts[0]
                    dataset.image(folder / file, split_of(first) if first != name else '').labels.append(name)
    return dataset
