"""Converts a dataset for training: COCO JSON files and index PNGs in the run's folder, and a list of warnings."""

import itertools
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.app.annotations.dataset import SPLITS, AnnotatedImage, Annotation, Converted, Dataset, assign_splits
from icconv_mm.app.annotations.duplicates import say_duplicates
from icconv_mm.app.annotations.map_conversion import convert_seg_maps
from icconv_mm.app.annotations.report import check_left_out
from icconv_mm.app.annotations.segmentations import is_outside, measure
from icconv_mm.arguments import require_known
from icconv_mm.datasets import limits
from icconv_mm.datasets.flips import flips_of
from icconv_mm.datasets.image_files import loaded_shape, opened
from icconv_mm.datasets.keypoints import KEYPOINTS_FILE, sigmas_of
from icconv_mm.datasets.loading import ends_of, image_defect
from icconv_mm.datasets.reading import DatasetError, read_bytes
from icconv_mm.errors import check_names, message_of
from icconv_mm.files import atomic_write, write_json
from icconv_mm_runtime.decoding import lacks_end

_DECODING = 4  # images decoded in parallel
_PERSON = 0.53  # area of a person as a share of the box, without a mask: as in the evaluation of CrowdPose and AIC


def convert_dataset(
    dataset: Dataset,
    task: str,
    folder: Path,
    *,
    classes: Sequence[str] | None = None,
    ignore_index: Sequence[int] = (),
    thorough: bool = False,
    shared: bool = False,
    root: Path | None = None,
) -> Converted:
    """Checks the annotations of a dataset for a task and writes them to a folder.

    Args:
        dataset: The dataset that a reader returned; its ``warnings`` grow.
        task: One of :data:`icconv_mm.datasets.kinds.TASKS`.
        folder: Receives ``TASK_SPLIT.json``, the names of classes or keypoints and, for segmentation maps that networks
            cannot read as they are, ``maps``.
        classes: The class names to train on, in their order; for segmentation maps without names, the name of each
            value from 0.
        ignore_index: Values of segmentation maps that are ignored.
        thorough: Whether every segmentation map is read, and every image compared with the others.
        shared: Whether several tasks share the splits: they are kept, and the caller runs :func:`fill_splits` next.
        root: The folder that the paths of images in the files are relative to; by default the deepest one that contains
            all of them.

    Raises:
        DatasetError: No annotation is left for training, or too many are skipped.
        InputError: A class is not in the data, or the name of a class or a keypoint cannot be written to a file.
    """
    check_names(classes or (), 'classes: the class')
    images = dataset.labelled(task)
    converted = Converted(task, root or root_of(images), notes=list(dataset.notes))
    given = {image.path: image.split for image in images}
    if not shared and (note := assign_splits(images)):
        converted.notes.append(note)
    images = _readable(dataset, images, thorough, given)
    say_duplicates(dataset, converted, images, thorough)
    if task == 'semantic':
        images = convert_seg_maps(
            dataset, converted, images, folder, classes, {*ignore_index, *dataset.ignore_index}, thorough
        )
    elif task == 'classification':
        names = require_known(classes, dataset.labels(), 'classes: no class') if classes else dataset.labels()
        labels = {image.path: image.label_among(names) for image in images}
        images = [replace(image, labels=[labels[image.path]]) for image in images if labels[image.path]]
        counts = Counter(labels.values())
        converted.classes = names if classes else [name for name in names if counts[name]]
        converted.counts = {name: counts[name] for name in converted.classes} if images else {}
    else:
        images = _convert_annotations(dataset, converted, images, classes)
    values = {value: color for color, value in dataset.colors.items()}
    converted.colors = {name: values[value] for value, name in dataset.seg_map_classes.items() if value in values}
    if not images or (not converted.counts and task != 'semantic'):
        raise nothing_left(dataset, f'no image is left with annotations for {task!r}')
    check_left_out(dataset)
    converted.sizes = np.array([image.size for image in images])
    _write_names(converted, folder)
    for split in SPLITS:
        images_of_split = [image for image in images if image.split == split]
        if images_of_split:
            converted.splits[split], converted.paths[split] = (
                len(images_of_split),
                [image.path for image in images_of_split],
            )
            converted.annotations[split] = sum(len(image.annotations or ()) for image in images_of_split)
            path = folder / f'{task}_{split}.{"txt" if task == "classification" else "json"}'
            converted.files[split] = _write(converted, images_of_split, path)
    if not shared:
        fill_splits([converted])
    return converted


def root_of(images: Iterable[AnnotatedImage]) -> Path:
    """Returns the deepest folder that contains all images; the current one if there are none."""
    folders = [image.path.parent for image in images]
    return Path(os.path.commonpath(folders)) if folders else Path()


def fill_splits(converted: Collection[Converted]) -> None:
    """Substitutes another split for one that has no images in any task.

    If some tasks have images in a split, the other tasks get no such split.
    """
    for missing, instead, note in (
        ('val', 'test', 'no split for validation: the test split serves'),
        ('val', 'train', 'what trains also validates: its figures say nothing of other images'),
        ('test', 'val', ''),
        ('train', 'val', 'no image for training is left'),
    ):
        if any(missing in result.files for result in converted):
            continue
        for result in converted:
            if instead in result.files:
                for paths in (result.files, result.paths, result.annotations):
                    paths[missing] = paths[instead]
                if note and note not in result.notes:
                    result.notes.append(note)


def nothing_left(dataset: Dataset, what: str) -> DatasetError:
    """Returns the error that a dataset has nothing to train on, with its first warning."""
    first = f'; of {len(dataset.warnings)} problems the first: {dataset.warnings[0]}' if dataset.warnings else ''
    return DatasetError(f'{dataset.location}: {what}{first}')


def _readable(
    dataset: Dataset, images: Sequence[AnnotatedImage], thorough: bool, splits: Mapping[Path, str]
) -> list[AnnotatedImage]:
    """Returns the images whose header can be read; if ``thorough``, those that can be decoded in full.

    Args:
        dataset: Records a warning for each of the other images.
        images: The images of a task.
        thorough: Whether the images are decoded.
        splits: The split of each image as the dataset gives it.
    """
    problems = {str(problem) for problem in dataset.warnings}  # warnings of another task
    whole = [image for image in images if min(image.size) > 0]  # reading the size of the others records their problem
    with ThreadPoolExecutor(_DECODING) as pool:
        for image, defect in zip(whole, pool.map(_defect_of if thorough else _damage_of, whole)):
            image.problem = defect or image.problem
        is_cut = pool.map(lambda image: not image.problem and lacks_end(ends_of(image.path)), whole)
        cut = [image.path for image, lacks in zip(whole, is_cut) if lacks]
    if cut:
        names = ', '.join(path.name for path in cut[:10]) + (', ...' if len(cut) > 10 else '')
        dataset.warn(cut[0].parent, f'{len(cut)} JPEG files lack their end, and are used as they are: {names}')
    for image in images:
        if image.problem and f'{image.path}: {image.problem}: left out' not in problems:
            dataset.leave_out(image.path, image.problem, image.path, splits[image.path])
    return [image for image in images if not image.problem]


def _damage_of(image: AnnotatedImage) -> str:
    """Returns why an image cannot be decoded if its file is truncated; else ''."""
    defect = image_defect(image.path)
    return f'cannot be read ({defect})' if defect else ''


def _defect_of(image: AnnotatedImage) -> str:
    """Returns why an image cannot be decoded in training; '' if it can."""
    width, height = image.size
    try:
        content = read_bytes(image.path, limits.IMAGE_BYTES)
        if not lacks_end(content):  # such a JPEG is read where it lacks little
            with opened(content) as image:
                image.load()  # OpenCV loads some truncated files
        shape = loaded_shape(content)
    except Exception as error:  # whatever a decoder raises, the file is damaged
        return f'cannot be read ({message_of(error)})'
    loaded = ' x '.join(map(str, shape)) or 'nothing'
    return '' if shape == (height, width, 3) else f'OpenCV loads it as {loaded}, expected {height} x {width} x 3'


# --- objects ---


def _convert_annotations(
    dataset: Dataset, converted: Converted, images: Sequence[AnnotatedImage], classes: Sequence[str] | None
) -> list[AnnotatedImage]:
    """Returns copies of the images with only the annotations of this task; other tasks train on other annotations."""
    check_annotations(dataset, images)
    class_names, what = list(dataset.classes), 'classes: no class'
    if converted.task == 'pose':
        class_names, what = _posed(dataset, converted, images), 'classes: no class with keypoints is called'
    names = require_known(classes, class_names, what) if classes else class_names
    if converted.task == 'pose':
        converted.keypoints, converted.skeleton = dataset.keypoints_of(*names)
        converted.flip_pairs = _flips(dataset, converted)
        fits = len(dataset.sigmas) == len(converted.keypoints)
        converted.sigmas = dataset.sigmas if fits else sigmas_of(converted.keypoints)
    learned, wanted = [], set(names)
    for image in images:
        annotations = [annotation for annotation in image.annotations if annotation.name in wanted]
        if converted.task == 'instance':
            annotations = [annotation for annotation in annotations if _has_mask(dataset, annotation)]
        learned.append(replace(image, annotations=annotations))
    converted.classes = names if converted.task != 'pose' or len(names) == 1 else ['object']
    _count_annotations(converted, learned)
    _say_crowds(dataset, converted, learned)
    return learned


def _say_crowds(dataset: Dataset, converted: Converted, images: Sequence[AnnotatedImage]) -> None:
    """Adds a note on each class of which most objects are crowds, as some tools write for every mask.

    Raises:
        DatasetError: All objects are crowds.
    """
    crowds = Counter(annotation.name for image in images for annotation in image.annotations if annotation.crowd)
    names = Counter(annotation.name for image in images for annotation in image.annotations)
    if crowds and crowds == names:
        what = f'all {crowds.total()} objects are crowds or ignored (iscrowd, difficult), which are not learned'
        raise DatasetError(f'{dataset.location}: {what}; if each is one object, use --crowd-as-objects')
    for name in converted.classes:
        if 2 * crowds[name] > names[name]:
            what = f'{crowds[name]} of {names[name]} {name!r} are crowds or ignored (iscrowd, difficult): not learned'
            converted.notes.append(f'{what}; if each is one object, use --crowd-as-objects')


def _posed(dataset: Dataset, converted: Converted, images: Sequence[AnnotatedImage]) -> list[str]:
    """Returns the classes with keypoints; the loss would ignore regions of others, as of people without keypoints."""
    there = {annotation.name for image in images for annotation in image.annotations}
    posed = {
        annotation.name for image in images for annotation in image.annotations if annotation.keypoints is not None
    }
    if there - posed:
        converted.notes.append(f'never with a keypoint, left out: {", ".join(sorted(there - posed))}')
    return [name for name in dataset.classes if name in posed]


def _has_mask(dataset: Dataset, annotation: Annotation) -> bool:
    if annotation.segmentation is None and not annotation.crowd:
        dataset.warn(annotation.location, 'has no mask', is_left_out=True)
        return False
    return True


def check_annotations(dataset: Dataset, images: Sequence[AnnotatedImage]) -> None:
    """Removes annotations without a usable box and clips boxes to the image."""
    for image in images:
        kept, size = [], image.size
        for annotation in image.annotations:
            problem, is_kept = _settle(annotation, size)
            if is_kept:
                kept.append(annotation)
                dataset.warn(annotation.location, problem) if problem else None
            else:
                dataset.leave_out(annotation.location, problem, image.path, image.split)
        image.annotations = kept


def _settle(annotation: Annotation, size: tuple[int, int]) -> tuple[str, bool]:
    """Sets box and area of an annotation, inside its image; returns a problem or '', and whether it is usable."""
    outside = '' if annotation.keypoints is None else _leave_outside(annotation, size)
    if annotation.box is None and annotation.segmentation is None:
        return f'{annotation.name}: {outside or "no box"}', False
    problem = measure(annotation, size)
    x, y, w, h = annotation.box
    if x >= 0 and y >= 0 and 0 < w <= size[0] - x and 0 < h <= size[1] - y:  # most boxes
        return problem or (outside and f'{annotation.name}: {outside}'), True
    if w <= 0 or h <= 0:
        return f'{annotation.name}: the box has {w:g} x {h:g} pixels', False
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1])
    if right <= left or bottom <= top:
        return f'{annotation.name}: the box is outside the image of {size[0]} x {size[1]}', False
    annotation.box = [left, top, right - left, bottom - top]
    beyond = max(-x, -y, x + w - size[0], y + h - size[1])
    if beyond > 1.5:
        problem = problem or f'{annotation.name}: the box goes {beyond:.1f} pixels beyond the image: cut'
    return problem or (outside and f'{annotation.name}: {outside}'), True


def _leave_outside(annotation: Annotation, size: tuple[int, int]) -> str:
    """Takes keypoints outside the image as unlabelled; returns a message about them, or ''."""
    points = np.array(annotation.keypoints, dtype=float).reshape(-1, 3)
    outside = (points[:, 2] > 0) & is_outside(points, size)
    if not outside.any():
        return ''
    first = ', '.join(f'{value:g}' for value in points[outside][0, :2])
    points[outside] = 0
    annotation.keypoints = points.ravel().tolist() if points.any() else None
    return f'{outside.sum()} keypoints outside the image of {size[0]} x {size[1]}, the first at ({first}): not learned'


def _count_annotations(converted: Converted, images: Sequence[AnnotatedImage]) -> None:
    annotations = [(annotation, max(image.size)) for image in images for annotation in image.annotations]
    names = Counter(annotation.name for annotation, _ in annotations)
    if converted.task == 'pose':
        count = sum(annotation.keypoints is not None for annotation, _ in annotations)
        converted.counts = {converted.classes[0]: count} if count else {}
    else:
        converted.counts = {name: names[name] for name in converted.classes} if names else {}
    boxes = [(annotation.box[2] / longer, annotation.box[3] / longer) for annotation, longer in annotations]
    converted.boxes = np.array(boxes).reshape(-1, 2)
    converted.most = max((len(image.annotations) for image in images), default=0)


def _flips(dataset: Dataset, converted: Converted) -> list[tuple[str, str]] | None:
    """Returns the keypoint pairs swapped by a flip, with a note on the others; None if nothing tells."""
    flips = flips_of(converted.keypoints, dataset.flip_indices)
    if flips.problem:
        dataset.warn(dataset.location, f'flip_idx {flips.problem}')
    names = f'{", ".join(flips.alone[:8])}{", ..." if len(flips.alone) > 8 else ""}'
    where = f'(see flip_pairs in {KEYPOINTS_FILE} and flip_prob in the config)'
    if flips.pairs is None:
        what = 'nothing says which keypoints a flip swaps with these, whose names have a side or an order'
        converted.notes.append(f'{what}: {names}: images are not flipped {where}')
    elif flips.alone:
        what = 'half of the training images are flipped, in which these keep their names, having no partner'
        converted.notes.append(f'{what}: {names} {where}')
    return flips.pairs


# --- writing ---


def _write(converted: Converted, images: Sequence[AnnotatedImage], path: Path) -> Path:
    """Writes the annotations of one split; the user's images and segmentation maps are relative to ``made.root``."""
    names = [str(image.path.relative_to(converted.root)) for image in images]
    labels = {name: label for label, name in enumerate(converted.classes)}
    if converted.task == 'classification':
        lines = [f'{name} {labels[image.label]}\n' for name, image in zip(names, images)]
        _write_text(path, ''.join(lines))
        return path
    entries, annotations, numbers = [], [], itertools.count(1)
    for number, (name, image) in enumerate(zip(names, images), 1):
        width, height = image.size
        entries.append({'id': number, 'file_name': name, 'width': width, 'height': height})
        if converted.task == 'semantic':
            if image.seg_map.is_relative_to(path.parent.absolute()):
                entries[-1]['seg_map'] = str(image.seg_map.relative_to(path.parent.absolute()))
            else:
                entries[-1]['seg_map_file_name'] = os.path.relpath(image.seg_map, converted.root)
            continue
        for annotation in image.annotations:
            annotations.append({'id': next(numbers), 'image_id': number, **_entry(converted, annotation, labels)})
    categories: list[dict[str, Any]] = [{'id': i, 'name': name} for i, name in enumerate(converted.classes, 1)]
    if converted.task == 'pose':
        skeleton = [[a + 1, b + 1] for a, b in converted.skeleton]
        categories[0] |= {'keypoints': converted.keypoints, 'skeleton': skeleton}
    write_json(path, {'images': entries, 'annotations': annotations, 'categories': categories})
    return path


def _write_names(converted: Converted, folder: Path) -> None:
    """Writes the class names, one per line, or for poses the keypoints file, which a config names as ``metainfo``."""
    if converted.task != 'pose':
        _write_text(folder / f'{converted.task}_classes.txt', ''.join(f'{name}\n' for name in converted.classes))
        return
    pairs = converted.flip_pairs or []
    metainfo = dict(
        keypoints=converted.keypoints, skeleton=converted.skeleton, flip_pairs=pairs, sigmas=converted.sigmas
    )
    write_json(folder / KEYPOINTS_FILE, {'classes': converted.classes[:1], **metainfo}, indent=1)


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text.encode())


def _entry(converted: Converted, annotation: Annotation, labels: Mapping[str, int]) -> dict:
    entry: dict[str, Any] = {'bbox': [round(value, 3) for value in annotation.box], 'area': round(annotation.area, 3)}
    entry['category_id'] = 1 if converted.task == 'pose' else labels[annotation.name] + 1
    entry['iscrowd'] = int(annotation.crowd)
    if annotation.segmentation is not None:
        entry['segmentation'] = annotation.segmentation
    elif converted.task == 'instance':  # a crowd without a segmentation
        x, y, w, h = annotation.box
        entry['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if converted.task == 'pose':
        entry['area'] *= _PERSON if annotation.guessed else 1
        none = [0] * (3 * len(converted.keypoints))
        entry['keypoints'] = [round(float(value), 3) for value in annotation.keypoints or none]
        entry['num_keypoints'] = sum(v > 0 for v in entry['keypoints'][2::3])
    return entry
