"""Places the images of a dataset in a new folder."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

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


def place_images(paths: Iterable[Path], folder: Path, copy: bool) -> dict[Path, Path]:
    """Links or copies images below a folder, in the subfolders that they have below their common one.

    Returns:
        The path below ``folder`` of each image.
    """
    paths = list(paths)
    root = os.path.commonpath([path.parent for path in paths])
    placed = {path: path.relative_to(root) for path in paths}
    for path, name in placed.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if copy:
            shutil.copyfile(path, folder / name)
        else:
            os.symlink(path, folder / name)
    return placed
