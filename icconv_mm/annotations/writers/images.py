"""Places the images of a dataset in a new folder."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from icconv_mm.annotations.dataset import AnnotatedImage
from icconv_mm.errors import ArgumentError


def new_folder(folder: str | Path) -> Path:
    """Makes a folder and returns its path.

    Raises:
        ArgumentError: It is a file, or is not empty.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArgumentError('out', f'{folder} is not an empty folder: choose another')
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def place_images(
    images: Sequence[AnnotatedImage], folder: Path, copy: bool, by_split: bool = False
) -> dict[Path, Path]:
    """Links or copies images below a folder, in the subfolders that they have below their common one.

    Args:
        images: The images.
        folder: The folder.
        copy: Whether they are copied.
        by_split: Whether each split has its own subfolder.

    Returns:
        The path below ``folder`` of each image.
    """
    placed: dict[Path, Path] = {}
    for split in sorted({image.split for image in images}) if by_split else ('',):
        own = [image.path for image in images if not by_split or image.split == split]
        root = os.path.commonpath([path.parent for path in own])
        placed |= {path: Path(split, path.relative_to(root)) for path in own}
    for path, name in placed.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if copy:
            shutil.copyfile(path, folder / name)
        else:
            os.symlink(path, folder / name)
    return placed
