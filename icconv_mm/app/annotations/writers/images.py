"""Places the images of a dataset in a new folder."""

import errno
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path

from icconv_mm.app.annotations.dataset import AnnotatedImage, Dataset
from icconv_mm.errors import ArgumentError
from icconv_mm.files import atomic_write, new_folder


def into_new_folder(write: Callable[[Dataset, Path, bool], Path]) -> Callable[..., Path]:
    """Returns a writer whose folder is there complete or not at all."""

    @wraps(write)
    def write_all(dataset: Dataset, folder: str | Path, copy: bool = False) -> Path:
        with new_folder(folder) as written:
            write(dataset, written, copy)
        return Path(folder)

    return write_all


def usable_images(dataset: Dataset, form: str, *tasks: str) -> list[AnnotatedImage]:
    """Returns the images that can be read, sorted by path; the others are left out with a warning.

    Args:
        dataset: The dataset.
        form: The format's name, for the error.
        tasks: The tasks that the format has annotations for.

    Raises:
        ArgumentError: There is nothing to write.
    """
    there = dataset.tasks()
    if not set(there) & set(tasks):
        what = f'{form} has annotations for {" and ".join(tasks)}, this dataset for {", ".join(there) or "nothing"}'
        raise ArgumentError('to', f'{dataset.location}: {what}')
    images = []
    for image in sorted(dataset, key=lambda image: image.path):
        if min(image.size) > 0 and not image.problem:  # the size is read first: it finds the problem
            images.append(image)
        else:
            dataset.leave_out(image.path, image.problem, image.path, image.split)
    if not images:
        raise ArgumentError('to', f'{dataset.location}: no image can be read')
    return images


def warn_of_losses(dataset: Dataset, form: str, losses: Iterable[tuple[int, str, str]]) -> None:
    """Records a warning for what a format cannot hold.

    Args:
        dataset: The dataset.
        form: The format.
        losses: How often each occurs, its name, and what happens to it, as ``'is left out'``.
    """
    for count, name, what in losses:
        if count:
            dataset.warn(dataset.location, f'{form} cannot hold {name}: {count} in the dataset, {what}')


def place_images(
    images: Sequence[AnnotatedImage],
    folder: Path,
    copy: bool,
    by_split: bool = False,
    are_stems_unique: bool = False,
) -> dict[Path, Path]:
    """Links or copies images below a folder, in the subfolders that they have below their common one.

    Args:
        images: The images.
        folder: The folder.
        copy: Whether they are copied.
        by_split: Whether each split has its own subfolder.
        are_stems_unique: Whether no two names differ only in their suffix and no subfolder is called ``images``, as
            YOLO finds its text files by.

    Returns:
        The path below ``folder`` of each image.
    """
    placed: dict[Path, Path] = {}
    for split in sorted({image.split for image in images}) if by_split else ('',):
        names_of_split = {
            image.path: image.link or image.path for image in images if not by_split or image.split == split
        }
        root = os.path.commonpath([named.parent for named in names_of_split.values()])
        placed |= {path: Path(split, named.relative_to(root)) for path, named in names_of_split.items()}
    if are_stems_unique:
        stems: set[Path] = set()
        for path, name in placed.items():
            parts = ['image' if part == 'images' else part for part in name.parts[:-1]]
            name = Path(*parts, name.name)
            while name.with_suffix('') in stems:
                name = name.with_name(f'{name.stem}_{name.suffix[1:]}{name.suffix}')
            stems.add(name.with_suffix(''))
            placed[path] = name
    taken: set[Path] = set()
    for path, name in placed.items():
        names = (name.with_name(f'{name.stem}_{number}{name.suffix}') for number in itertools.count(2))
        placed[path] = next(name for name in itertools.chain([name], names) if name not in taken)
        taken.add(placed[path])
        _place(path, folder / placed[path], copy)
    return placed


def _place(path: Path, target: Path, copy: bool) -> None:
    """Links or copies an image to a new file; copies it where there are no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not copy:
        try:
            os.symlink(path, target)
            return
        except FileExistsError:  # a copy would be written through the link that is there
            raise
        except OSError:  # Windows links for administrators alone, and some disks have no links
            pass
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    with atomic_write(target, is_flushed=False) as file:
        file.write(path.read_bytes())
