"""Reports on a dataset that :mod:`icconv_mm.app.annotations.convert` converted: a summary in lines, a page of drawn
images, and a JSON list of the warnings.

It also checks that not too many damaged annotations were skipped.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from icconv_mm.app.annotations.dataset import AnnotatedImage, Converted, Dataset
from icconv_mm.app.annotations.map_conversion import read_class_ids
from icconv_mm.app.annotations.segmentations import mask_of
from icconv_mm.datasets.reading import DatasetError, fault_of
from icconv_mm.errors import printable
from icconv_mm.files import atomic_write, write_json
from icconv_mm_runtime.decoding import decode_image
from icconv_mm_runtime.drawing import Drawing, DrawnObject, color_of, draw, encoded, tiles

_MOST = 20  # warnings listed in a summary
_GREY = (128, 128, 128)
_SIDE = 480  # pixels that small images are enlarged to, by a whole number
_NAMED = 20  # most keypoints whose names are drawn


def summary(dataset: Dataset, converted: Sequence[Converted]) -> list[str]:
    """Returns a dataset's summary as lines: splits, classes with counts, sizes, then warnings by file."""
    lines = [f'{dataset.location}: {dataset.format}, {len(dataset.images)} images']
    for task in converted:
        lines.append(f'  {task.task}: {split_counts(task)}')
        if task.task == 'semantic':
            counts = ', '.join(f'{name} {share:.1%}' for name, share in task.counts.items())
        else:
            counts = ', '.join(f'{name} {count:g}' for name, count in task.counts.items() if count)
        absent = [name for name, count in task.counts.items() if not count]
        lines.append(f'    {len(task.classes)} classes: {counts}')
        if absent:
            lines.append(f'    without any annotation: {", ".join(absent[:8])}{", ..." if len(absent) > 8 else ""}')
        if task.keypoints:
            lines.append(f'    {len(task.keypoints)} keypoints: {", ".join(task.keypoints)}')
        if len(task.boxes):
            sides = np.sqrt(task.boxes.prod(1)) * 100
            low, middle, high = np.percentile(sides, [5, 50, 95])
            lines.append(
                f'    sides of boxes in % of the longer side: {low:.1f} to {high:.1f}, half below {middle:.1f}'
            )
        lines += [f'    note: {note}' for note in task.notes]
    lines.append(f'  sizes: {sizes_of([tuple(size) for task in converted for size in task.sizes.tolist()])}')
    lines += problem_lines(dataset)
    lines += [] if dataset.warnings else ['  nothing wrong was found']
    return [printable(line) for line in lines]


def describe_dataset(dataset: Dataset) -> str:
    """Returns what a dataset has, before it is converted: see :meth:`~.dataset.Dataset.summary`."""
    splits = Counter(image.split or 'no split' for image in dataset)
    counts = Counter(annotation.name for _, annotation in dataset.annotations())
    labels = Counter(label for image in dataset for label in set(image.labels))
    lines = [f'{dataset.location}: {dataset.format}, {len(dataset)} images ({_counts(splits)})']
    lines.append(f'  tasks: {", ".join(dataset.tasks())}')
    if dataset.classes:
        lines.append(f'  {len(dataset.classes)} classes: {_counts({name: counts[name] for name in dataset.classes})}')
    if labels:
        lines.append(f'  {len(labels)} classes of images: {_counts(dict(sorted(labels.items())))}')
    if dataset.keypoints:
        lines.append(f'  {len(dataset.keypoints)} keypoints: {", ".join(dataset.keypoints)}')
    if dataset.seg_map_classes:
        lines.append(f'  classes of segmentation maps: {", ".join(dataset.seg_map_classes.values())}')
    lines += [f'  note: {note}' for note in dataset.notes]
    return '\n'.join(map(printable, lines + problem_lines(dataset)))


def _counts(numbers: Mapping[str, int]) -> str:
    return ', '.join(f'{name} {count}' for name, count in numbers.items())


def split_counts(converted: Converted) -> str:
    """Returns the number of images in each split, as text."""
    return ', '.join(f'{split} {count}' for split, count in converted.splits.items())


def sizes_of(sizes: Sequence[tuple[int, int]]) -> str:
    """Returns the most frequent image sizes, as text."""
    counts = Counter(sizes)
    shown = ', '.join(f'{int(w)} x {int(h)}' for (w, h), _ in counts.most_common(3))
    return shown + (f' and {len(counts) - 3} others' if len(counts) > 3 else '')


def problem_lines(dataset: Dataset, most: int = _MOST) -> list[str]:
    """Returns lines of missing images, then of warnings by file; after ``most`` warnings, the number of the others."""
    lines = []
    if dataset.missing:
        lines.append(f'  {len(dataset.missing)} images are named and not there, the first: {dataset.missing[0]}')
    if dataset.warnings:
        lines.append(f'  warnings, {len(dataset.warnings)}:')
    lines += [f'    {problem}' for problem in dataset.warnings[:most]]
    if len(dataset.warnings) > most:
        lines.append(f'    ... and {len(dataset.warnings) - most} more')
    return lines


def draw_page(dataset: Dataset, converted: Sequence[Converted], path: Path, count: int = 12) -> Path:
    """Draws a page of images with their annotations, spread evenly over the dataset, and returns its path."""
    images = sorted((p for p in dataset.images.values() if not p.problem), key=lambda p: p.path)
    chosen = [images[i] for i in np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)]
    drawn = []
    for image in chosen:
        try:
            drawn.append(_drawn(dataset, converted, image))
        except Exception as error:
            dataset.warn(image.path, f'is not on the page: {fault_of(error)}')
    if drawn:
        with atomic_write(path) as file:
            file.write(encoded(tiles(drawn), path.suffix))
    return path


def _drawn(dataset: Dataset, converted: Sequence[Converted], image: AnnotatedImage) -> np.ndarray:
    """Draws an image: crowds hatched in grey, ignored pixels grey, and the names of the largest object's keypoints."""
    pixels = decode_image(image.path.read_bytes())
    by_task = {task.task: task for task in converted}
    classes = next((t.classes for name, t in by_task.items() if name in ('detection', 'instance')), dataset.classes)
    objects = []
    annotations = [annotation for annotation in image.annotations or () if annotation.name in classes]
    posed = [annotation for annotation in annotations if annotation.keypoints]
    named = max(posed, key=lambda dataset: dataset.box[2] * dataset.box[3] if dataset.box else 0, default=None)
    for annotation in annotations:
        label = classes.index(annotation.name)
        names, skeleton = dataset.keypoints_of(annotation.name)
        item = DrawnObject(color_of(label), annotation.name, skeleton=skeleton)
        if annotation.crowd:
            item.color, item.text, item.is_hatched = _GREY, f'{annotation.name}: ignored', True
        if annotation.box is not None:
            x, y, w, h = annotation.box
            item.box = [x, y, x + w, y + h]
        item.mask = None if annotation.segmentation is None else mask_of(annotation.segmentation, image.size)
        if annotation.keypoints:
            points = np.array(annotation.keypoints, dtype=float).reshape(-1, 3)
            item.keypoints, item.shown = points[:, :2], points[:, 2] > 0
            item.keypoint_names = names if annotation is named and len(names) <= _NAMED else ()
        objects.append(item)
    seg_map, names = None, ()
    if image.seg_map is not None and 'semantic' in by_task:
        values = read_class_ids(image.seg_map, image.segments)
        seg_map, names = values if values.ndim == 2 else None, by_task['semantic'].classes
    title = f'{image.split}: {image.path.name}' + ''.join(f' {label}' for label in image.labels)
    drawing = Drawing(objects, seg_map, names, title=title, shape=pixels.shape[:2], ignored_color=_GREY)
    if (times := _SIDE // max(pixels.shape)) > 1:  # so that a small image is larger than the words on it
        pixels = pixels.repeat(times, 0).repeat(times, 1)
    return draw(pixels, drawing, longest=1200)


_SHARE, _FEW = 0.1, 3  # share and number of images that may lose annotations in any dataset
_LISTED = 20  # warnings listed in the error


def check_left_out(dataset: Dataset) -> None:
    """Raises DatasetError if too many annotations of a dataset were skipped.

    Too many are a whole split, or annotations of more than a tenth of the images and more than three; with ``strict``,
    any.
    """
    left_out = [str(problem) for problem in dataset.warnings if problem.is_left_out]
    if dataset.strict and (left_out or dataset.missing):
        raise DatasetError(f'strict: {left_out[0] if left_out else f"{dataset.missing[0]}: the image is not there"}')
    kept = {
        image.split for image in dataset if not image.problem and (image.annotations or image.seg_map or image.labels)
    }
    for split in sorted(set(dataset.lost.values()) - kept - {''}):
        first = next(key for key, count in dataset.lost.items() if count == split)
        raise DatasetError(f'{dataset.location}: nothing is left of the split {split}{_list(left_out, first)}')
    total = len({*map(str, dataset.images), *dataset.lost})
    if len(dataset.lost) > max(_SHARE * total, _FEW):
        what = f'{len(dataset.lost)} of {total} images lost annotations, more than a tenth'
        raise DatasetError(f'{dataset.location}: {what}{_list(left_out)}')


def _list(lines: list[str], first: str = '') -> str:
    """Formats lines that follow a message; those that contain ``first`` come first."""
    lines = [printable(line) for line in sorted(lines, key=lambda line: first not in line)]
    more = [f'... and {len(lines) - _LISTED} more'] if len(lines) > _LISTED else []
    return '\n  '.join([':', *lines[:_LISTED], *more]) if lines else ''


def write_warnings(path: Path, datasets: Iterable[Dataset]) -> None:
    """Writes all warnings of some datasets to a JSON list: ``file``, ``problem`` and whether it was ``left_out``."""
    rows = []
    for dataset in datasets:
        rows += [
            dict(file=problem.file, problem=problem.text, left_out=problem.is_left_out) for problem in dataset.warnings
        ]
        rows += [dict(file=name, problem='the image is not there', left_out=True) for name in dataset.missing]
    write_json(path, rows, indent=1)
