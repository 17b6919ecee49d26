"""Images and annotation files: readers, checks and conversion. :func:`read` is the door; import modules by name."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

__path__: list[str] = []  # modules below it are found by their former names: icconv_mm.registry

if TYPE_CHECKING:
    from icconv_mm.app.annotations.door import AnnotatedDataset


def read(path: str | Path, task: str | None = None, classes: Sequence[str] | None = None) -> 'AnnotatedDataset':
    """Returns the annotated images of a folder or an annotation file, in any format that ``docs/data.md`` lists.

    Boxes are x, y, width and height in pixels and lie inside their image, with its EXIF rotation; objects without a
    usable box are left out with a warning.

    Args:
        path: The folder; or the file, if a folder holds several datasets.
        task: One of ``TASKS``, if a folder holds several datasets: the one with annotations for it.
        classes: The classes of objects to keep, in this order; by default all.

    Raises:
        MissingFileError: The path does not exist.
        DatasetError: There are no annotations in a supported format, or too many of them are damaged.
        ArgumentError: There are several datasets, none for the task, or not these classes.
    """
    from icconv_mm.app.annotations.door import read_dataset

    return read_dataset(path, task, classes)
