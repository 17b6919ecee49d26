"""Finds the datasets of folders and annotation files, whatever their formats, and reads them."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from icconv_mm.app.annotations.dataset import Dataset
from icconv_mm.app.annotations.images_on_disk import ANNOTATION_SUFFIXES, Files, followed_folder
from icconv_mm.app.annotations.readers.class_folders import class_folder_sources
from icconv_mm.app.annotations.readers.coco import coco_sources
from icconv_mm.app.annotations.readers.cvat import cvat_sources
from icconv_mm.app.annotations.readers.deeplabcut import deeplabcut_sources
from icconv_mm.app.annotations.readers.label_studio import label_studio_sources
from icconv_mm.app.annotations.readers.labelme import labelme_sources
from icconv_mm.app.annotations.readers.seg_maps import seg_map_sources
from icconv_mm.app.annotations.readers.sleap import sleap_sources
from icconv_mm.app.annotations.readers.unsupported import refuse_unsupported
from icconv_mm.app.annotations.readers.voc import voc_sources
from icconv_mm.app.annotations.readers.yolo import yolo_sources
from icconv_mm.app.annotations.report import check_left_out
from icconv_mm.app.annotations.schema import check_dataset
from icconv_mm.datasets.kinds import TASKS
from icconv_mm.datasets.reading import DatasetError, fault_of, no_garbage_search
from icconv_mm.errors import ArgumentError, UserError
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_READERS = (
    *(coco_sources, yolo_sources, voc_sources, cvat_sources, seg_map_sources),
    *(deeplabcut_sources, labelme_sources, label_studio_sources, sleap_sources),
)
_OF_KEYPOINTS = ('DeepLabCut', 'SLEAP')  # their boxes are made from the keypoints
_COMMON = ('data', 'annotations')  # file names that many datasets use
_NO_OBJECTS = ('__ignore__', '__background__', '_background_')  # of LabelMe, ISAT and others
_FORMATS = (
    "COCO's JSON, YOLO, Pascal VOC, CVAT, LabelMe, Label Studio's JSON, segmentation maps beside images, a mask PNG "
    'per instance, DeepLabCut, SLEAP, folders of classes'
)


@no_garbage_search()
def read_datasets(
    *locations: str | Path, strict: bool = False, crowd_as_objects: bool = False, voc_from: int | None = None
) -> list[Dataset]:
    """Reads all annotations in folders or annotation files.

    Args:
        locations: Folders and files.
        strict: Whether a dataset with skipped annotations is refused, here or at its conversion.
        crowd_as_objects: Whether crowds and ignored objects (COCO's ``iscrowd``, VOC's ``difficult``) are learned.
        voc_from: The number of the first pixel in boxes of Pascal VOC, 0 or 1; None decides by the boxes.

    Raises:
        MissingFileError: A location does not exist.
        ArgumentError: ``voc_from`` is another number.
        DatasetError: A location has no annotations in a supported format; a file that holds a whole split cannot be
            read; or too many annotations are skipped (:func:`icconv_mm.app.annotations.report.check_left_out`).
    """
    if voc_from not in (None, 0, 1):
        raise ArgumentError('voc_from', f'expected 0 or 1, got {voc_from!r}')
    datasets: list[Dataset] = []
    followed_folder.cache_clear()
    for location in map(Path, locations):
        files = Files(location.absolute())
        files.voc_from = voc_from
        sources_read = [_read_dataset(*source) for reader in _READERS for source in _sources(reader, files)]
        unreadable = [warning for warning in files.warnings if warning.file.lower().endswith(ANNOTATION_SUFFIXES)]
        if not sources_read and not any(problem.is_left_out for problem in unreadable):
            refuse_unsupported(files)
            sources_read = [_read_dataset(*source) for source in class_folder_sources(files) if files.only is None]
        labelled = [dataset for dataset in sources_read if dataset.tasks()]
        if not labelled:
            for problem in [problem for dataset in sources_read for problem in dataset.warnings] + files.warnings:
                raise DatasetError(f'{location}: none of its annotations can be used, the first: {problem}')
            missing = [name for dataset in sources_read for name in dataset.missing]
            if missing:
                what = f'none of the {len(missing)} images that its annotations name is there, the first: {missing[0]}'
                raise DatasetError(f'{location}: {what}: give a folder that has both')
            images = len(files.ending(*IMAGE_SUFFIXES))
            hint = f'; there are {images} images: give a folder that holds their annotations, too' if images else ''
            raise DatasetError(f'{location}: no annotations in a supported format: {_FORMATS}{hint}')
        empty = [
            dataset for dataset in sources_read if dataset not in labelled
        ]  # their warnings are added to another dataset
        labelled[0].warnings[:0] = files.warnings
        labelled[0].warnings += [problem for dataset in empty for problem in dataset.warnings]
        labelled[0].missing += [path for one in empty for path in one.missing]
        for dataset in labelled:
            dataset.strict = strict
            remove_background(dataset)
            for _, annotation in dataset.annotations() if crowd_as_objects else ():
                annotation.crowd = False
            _say_several_labels(dataset)
            _say_outside(dataset, files)
            check_left_out(dataset)
        datasets += labelled
    return datasets


def remove_background(dataset: Dataset) -> None:
    """Removes objects of a class that tools use for pixels of no object, as ISAT does for holes, with a warning."""
    for name in [name for name in dataset.classes if name in _NO_OBJECTS and len(dataset.classes) > 1]:
        removed = 0
        for image in dataset.images.values():
            kept = [annotation for annotation in image.annotations or () if annotation.name != name]
            if len(kept) < len(image.annotations or ()):
                removed += len(image.annotations) - len(kept)
                image.annotations = kept
        dataset.classes.remove(name)
        if removed:
            dataset.warn(dataset.location, f'{removed} objects of {name!r}, which is no class: not learned')


def _say_several_labels(dataset: Dataset) -> None:
    """Adds a note if images have several classes, as answers to several questions."""
    several = [image for image in dataset if len(set(image.labels)) > 1]
    if several:
        first = f'{several[0].path} has {", ".join(several[0].labels)}'
        what = f'{len(several)} images have several classes, of which a network learns one, the first: {first}'
        dataset.notes.append(f'{what}: classification leaves them out, unless --classes names one of each')


def _say_outside(dataset: Dataset, files: Files) -> None:
    """Records a warning for images and segmentation maps in use that lie outside the searched folders."""
    roots = [os.path.join(os.path.realpath(root), '') for root in (files.root, files.root.parent / 'images')]
    used = {str(p.path): None for p in dataset.images.values()}
    used |= {os.path.realpath(p.seg_map): None for p in dataset.images.values() if p.seg_map is not None}
    outside = [path for path in used if not path.startswith(tuple(roots))]
    if outside:  # except through links inside the folder
        linked = set(map(os.path.realpath, files.ending(*IMAGE_SUFFIXES)))
        outside = [path for path in outside if path not in linked]
    if outside:
        dataset.warn(files.root, f'{len(outside)} files lie outside the folder, the first: {outside[0]}')


def _sources(reader: Callable[[Files], Iterable[tuple]], files: Files) -> list[tuple[str, Path, Callable[[], Dataset]]]:
    """Returns the sources that a reader recognises; any error but a UserError becomes a DatasetError of the folder."""
    try:
        return list(reader(files))
    except UserError:
        raise
    except Exception as error:
        raise DatasetError(f'{files.root}: {fault_of(error)}') from error


def _read_dataset(kind: str, location: Path, read: Callable[[], Dataset]) -> Dataset:
    """Returns the dataset of a reader; any error but a UserError becomes a DatasetError of the file's format."""
    try:
        dataset = read()
    except UserError:
        raise
    except Exception as error:
        raise DatasetError(f'{location}: not read as {kind}: {fault_of(error)}') from error
    check_dataset(dataset)
    return dataset


def locations_and_tasks(datasets: Sequence[Dataset]) -> str:
    """Returns the location, the format and the tasks of each dataset, for a message."""
    return '; '.join(f'{dataset.location} ({dataset.format}): {", ".join(dataset.tasks())}' for dataset in datasets)


def choose_dataset(datasets: Sequence[Dataset], task: str) -> Dataset:
    """Returns the dataset with annotations for a task: among several, the one with the fewest other tasks.

    Raises:
        ArgumentError: No dataset has annotations for the task, or several fit equally.
    """
    fitting = [dataset for dataset in datasets if task in dataset.tasks()]
    if not fitting:
        raise ArgumentError('task', f'no annotations for {task!r}: {locations_and_tasks(datasets)}')
    least = min(len(dataset.tasks()) for dataset in fitting)
    best = [dataset for dataset in fitting if len(dataset.tasks()) == least]
    if len(best) > 1:
        names = ', '.join(str(dataset.location) for dataset in best)
        raise ArgumentError('data', f'{len(best)} datasets have annotations for {task!r}: name one of {names}')
    return best[0]


def name_of(location: str | Path) -> str:
    """Returns the name for runs on a dataset: its folder's, or its file's unless many datasets use that file name."""
    path = Path(os.path.abspath(location))
    if path.is_dir():
        return path.name
    return path.parent.name if path.stem in _COMMON else path.stem


def all_tasks(datasets: Sequence[Dataset]) -> list[str]:
    """Returns the tasks that one network can train on with these datasets: boxes only if no dataset has masks."""
    there = {task for dataset in datasets for task in dataset.tasks()}
    return [
        task
        for task in TASKS
        if task in there and task != 'classification' and not (task == 'detection' and 'instance' in there)
    ]


def only_task(datasets: Sequence[Dataset]) -> str:
    """Returns the only task that datasets have annotations for; of formats of keypoints alone, poses.

    Raises:
        ArgumentError: They have annotations for several tasks, or for none.
    """
    tasks = [task for task in TASKS if any(task in dataset.tasks() for dataset in datasets)]
    if 'pose' in tasks and all(dataset.format in _OF_KEYPOINTS for dataset in datasets):
        return 'pose'
    if len(tasks) != 1:
        several = f'there are annotations for {" and ".join(tasks)}: choose one' if tasks else 'nothing is annotated'
        raise ArgumentError('task', several + (', or all' if len(tasks) > 1 else ''))
    return tasks[0]
