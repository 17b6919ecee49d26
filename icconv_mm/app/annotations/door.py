"""The datasets that users get: read from any format, printed, and written for other tools."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from icconv_mm.app.annotations.convert import check_annotations
from icconv_mm.app.annotations.dataset import Dataset
from icconv_mm.app.annotations.find import choose_dataset, locations_and_tasks, read_datasets
from icconv_mm.app.annotations.report import describe_dataset
from icconv_mm.app.annotations.writers.coco import write_coco
from icconv_mm.app.annotations.writers.cvat import write_cvat
from icconv_mm.app.annotations.writers.label_studio import write_label_studio
from icconv_mm.app.annotations.writers.yolo import write_yolo
from icconv_mm.arguments import require_known
from icconv_mm.datasets.kinds import TASKS
from icconv_mm.datasets.reading import no_garbage_search
from icconv_mm.errors import ArgumentError


@dataclass
class AnnotatedDataset(Dataset):
    """A dataset with its summary and its conversions; ``len`` and iteration are over its images.

    Attributes are those of :class:`icconv_mm.app.annotations.dataset.Dataset`.
    """

    def summary(self) -> str:
        """Returns lines with the format, the splits, the classes and their numbers of objects, and the warnings."""
        return describe_dataset(self)

    def to_coco(self, folder: str | Path, copy: bool = False) -> Path:
        """Writes the dataset as COCO: :func:`icconv_mm.app.annotations.writers.coco.write_coco`."""
        return write_coco(self, folder, copy)

    def to_yolo(self, folder: str | Path, copy: bool = False) -> Path:
        """Writes the dataset for Ultralytics: :func:`icconv_mm.app.annotations.writers.yolo.write_yolo`."""
        return write_yolo(self, folder, copy)

    def to_labelstudio(self, folder: str | Path, copy: bool = False) -> Path:
        """Writes tasks of Label Studio: :func:`icconv_mm.app.annotations.writers.label_studio.write_label_studio`."""
        return write_label_studio(self, folder, copy)

    def to_cvat(self, folder: str | Path, copy: bool = False) -> Path:
        """Writes CVAT's XML for images: :func:`icconv_mm.app.annotations.writers.cvat.write_cvat`."""
        return write_cvat(self, folder, copy)


@no_garbage_search()
def read_dataset(
    path: str | Path,
    task: str | None = None,
    classes: Sequence[str] | None = None,
    ignore_index: Sequence[int] = (),
    **options: Any,
) -> AnnotatedDataset:
    """Returns the dataset of a folder or file: see :func:`icconv_mm.annotations.read`.

    Args:
        path, task, classes: As there; for segmentation maps that nothing names, the name of each value from 0.
        ignore_index: Values of segmentation maps that are ignored.
        options: See :func:`read_datasets`.
    """
    if task is not None:
        require_known([task], TASKS, 'task: none is called')
    classes = [classes] if isinstance(classes, str) else classes
    datasets = read_datasets(path, **options)
    if task is not None:
        dataset = choose_dataset(datasets, task)
    elif len(datasets) > 1:
        there = locations_and_tasks(datasets)
        raise ArgumentError('path', f'{path}: has {len(datasets)} datasets, name one by its file or task: {there}')
    else:
        (dataset,) = datasets
    check_annotations(dataset, [image for image in dataset if image.annotations is not None])
    dataset.ignore_index |= set(ignore_index)
    if classes is not None:
        _choose_classes(dataset, classes)
    return AnnotatedDataset(**{field.name: getattr(dataset, field.name) for field in fields(dataset)})


def _choose_classes(dataset: Dataset, classes: Sequence[str]) -> None:
    """Keeps the objects, the values of segmentation maps and the images of these classes."""
    names = dataset.seg_map_classes
    labels = dataset.labels()
    if not dataset.classes and not labels and not names:
        dataset.seg_map_classes = dict(enumerate(classes))
        return
    chosen = require_known(classes, [*dataset.classes, *names.values(), *labels], 'classes: no class')
    dataset.ignore_index |= {value for value, name in names.items() if name not in chosen}
    dataset.classes = [name for name in chosen if name in dataset.classes]
    for image in dataset:
        if image.annotations is not None:
            image.annotations = [annotation for annotation in image.annotations if annotation.name in chosen]
        image.labels = [label for label in image.labels if label in chosen]
