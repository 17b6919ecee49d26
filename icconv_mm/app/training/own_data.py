"""Writes a config for the user's own images: it detects their annotations, and is short and meant for editing."""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from icconv_mm.app.annotations.convert import convert_dataset, fill_splits, nothing_left, root_of
from icconv_mm.app.annotations.dataset import SPLITS, AnnotatedImage, Converted, Dataset, assign_splits
from icconv_mm.app.annotations.find import all_tasks, choose_dataset, name_of, only_task, read_datasets
from icconv_mm.app.annotations.images_on_disk import LOCATIONS
from icconv_mm.app.annotations.report import problem_lines, split_counts, write_warnings
from icconv_mm.app.runs.begin import load_config
from icconv_mm.app.runs.threads import WIDE, is_narrow
from icconv_mm.app.training import memory
from icconv_mm.app.training.budget import Budget
from icconv_mm.app.training.image_size import STRIDE, TRAINED, default_size, size_in_time, training_size
from icconv_mm.app.training.own_backbone import Start, backbone_of, default_backbone, learning_rate, start_of
from icconv_mm.app.training.own_data_text import (
    Choices,
    choices_text,
    config_text,
    crop_of,
    strides_of,
    written_choices,
)
from icconv_mm.arguments import check_positive
from icconv_mm.datasets.kinds import TASKS
from icconv_mm.engine.saving import UNFINISHED
from icconv_mm.errors import ArgumentError, MissingLibraryError, name_defect, printable
from icconv_mm.files import (
    alone_in,
    atomic_write,
    write_folder_of_images,
    write_json,
)
from icconv_mm.registry import LIBRARIES
from icconv_mm.run_folder import CHOICES, RUN_LOCK
from icconv_mm.versions import command_of, is_installed
from icconv_mm_runtime.files import write_together

LIBRARY = {task: library for library, task in LIBRARIES.items()} | {'instance': 'mmdet'}
_SEEN = 30_000  # images that a training sees: 500 images 60 times
_EPOCHS = (12, 300)
_STEPS = {'semantic': 2000}  # least steps of a training, else 1000; a short one gets smaller batches
_LEAST_BATCH = 2  # batch norm learns little of one image


def config_for(
    data: str | Path | Sequence[str | Path],
    task: str | None = None,
    backbone: str | None = None,
    size: int | None = None,
    epochs: int | str | Budget | None = None,
    *,
    work_dir: str | Path | None = None,
    classes: Sequence[str] | None = None,
    ignore_index: Sequence[int] = (),
    pretrained: str = 'auto',
    load_from: str | None = None,
    patience: int | None = None,
    strict: bool = False,
    crowd_as_objects: bool = False,
    voc_from: int | None = None,
    resume: bool = False,
    say: Any = None,
) -> Config:
    """Writes a config that trains a network on the user's images, with the annotations that it reads beside it.

    The folder of the annotations is named after their content. The config, which names that folder, is written last: an
    interrupted call leaves the former config and its annotations unchanged.

    Args:
        data: A folder, a ``data.yaml``, a COCO file, ... or several, for ``task='all'``: any format that
            ``tools/prepare_data.py`` reads.
        task: ``'detection'``, ``'instance'``, ``'semantic'``, ``'pose'``, ``'classification'``, or ``'all'`` for one
            network that learns all annotated tasks but ``'classification'``; by default the only annotated one.
        backbone: A name of :func:`icconv_mm.list_models` or a file of ``configs/_base_/backbones``, such as
            ``'small'``; by default that of the config that is there, else on a CPU ``'small'``, on GPUs
            ``'ic_resnet50'``.
        size: Pixels of the longer side that images are resized to; by default chosen from the images and objects.
        epochs: Length of the training, or its time, such as ``'12m'``: as many as are expected to fit, of which
            :func:`icconv_mm.apis.train` makes those that do; by default 30,000 images are seen.
        work_dir: Folder of the run, by default ``work_dirs/NAME_TASK``; the config is beside it and ends in ``.py``.
        classes: Classes to learn, in this order; for several tasks, those of the segmentation maps.
        ignore_index: Values of segmentation maps that are ignored.
        pretrained: ``'auto'`` takes the package's weights, else torchvision's for a network of their shape if they can
            be downloaded, ``'none'`` random ones; else a file, or any checkpoint that mmengine loads.
        load_from: A checkpoint of the whole network, which the caller will set in the config: ``'auto'`` then takes no
            other weights.
        patience: Validations without improvement after which the training ends.
        strict: Whether to refuse datasets of which anything would be left out.
        crowd_as_objects: Whether crowds and ignored objects (COCO's ``iscrowd``, VOC's ``difficult``) are learned.
        voc_from: The number of the first pixel in boxes of Pascal VOC, 0 or 1; None decides by the boxes.
        resume: Whether the config is for going on with a training: images per step are those of the config that is
            there, and by default ``size``.
        say: Called with each line about the dataset and the choices; by default they are printed.

    Returns:
        The config, whose ``filename`` is the written file.

    Raises:
        MissingFileError: A file or a folder does not exist.
        MissingLibraryError: The library of the task is not installed.
        DatasetError: The dataset cannot be read, or nothing is left of it.
        ArgumentError, InputError: Another argument cannot be used.
    """
    locations = [data] if isinstance(data, (str, Path)) else list(data)
    if task not in (None, *TASKS, 'all'):
        raise ArgumentError('task', f'expected one of {", ".join((*TASKS, "all"))}, got {task!r}')
    options = dict(strict=strict, crowd_as_objects=crowd_as_objects, voc_from=voc_from)
    datasets = read_datasets(*locations, **options) if task is None else None
    if datasets is not None:
        task = only_task(datasets)
    epochs = Budget(epochs) if isinstance(epochs, str) else epochs
    numbers = {'size': size, 'epochs': None if isinstance(epochs, Budget) else epochs, 'patience': patience}
    check_positive(**{name: value for name, value in numbers.items() if value is not None})
    if twice := [name for name, count in Counter(classes or ()).items() if count > 1]:
        raise ArgumentError('classes', f'{twice[0]} is named twice')
    if ignore_index and task not in ('semantic', 'all'):
        raise ArgumentError('ignore_index', f'is of segmentation maps, and the task is {task}')
    say = say or (lambda line: print(printable(line)))
    folder = Path(work_dir or Path('work_dirs', f'{name_of(locations[0])}_{task}'))
    if (defect := name_defect(os.path.abspath(folder))) is not None:  # mmengine writes the path into the config
        raise ArgumentError('work_dir', f'{os.path.abspath(folder)!r} {defect}: choose another')
    path = Path(f'{folder}.py')  # inside the folder, the runner would overwrite it with the whole config
    before = written_choices(path)
    if backbone is None:  # that of the config that is there, which another machine may have written
        backbone = before['backbone'] or default_backbone()
        say(f'backbone: {backbone}, as none is named')
    network = backbone_of(backbone)
    if task in ('pose', 'all') and strides_of(network)[0] > 4:
        raise ArgumentError('backbone', f'{backbone} has no map at stride 4, which the task {task} needs: take small')
    batch = before['batch'] if resume else None  # its schedule counts steps of this length
    if resume and pretrained == 'auto' and path.is_file() and not (before['weights'] or before['load_from']):
        pretrained = 'none'  # as it began: its learning rate stays
    size = size or (before['size'] if resume else None)
    epochs = before['epochs'] or epochs if resume and isinstance(epochs, Budget) else epochs
    given = [os.path.abspath(location) for location in locations]
    from_here = [os.path.relpath(location, folder.parent) for location in given]  # of a run that moves with its data
    with alone_in(folder, 'another run is at work', RUN_LOCK):
        _check_unedited(path, before, folder, given, from_here)
        for left in folder.glob(f'{UNFINISHED}*'):  # of a call that was killed
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED, ignore_cleanup_errors=True) as temporary:
            datasets = datasets or read_datasets(*locations, **options)
            converted = _prepared(datasets, task, Path(temporary, 'new'), classes, ignore_index, say)
            write_json(Path(temporary, 'new', LOCATIONS), given)
            images = _as_given(next(iter(converted.values())).root, given)
            write_folder_of_images(Path(temporary, 'new'), images, folder / 'annotations')
            start = start_of(backbone, task, pretrained, say, load_from)
            chosen = _choose(task, converted, network, start, size, epochs, batch, patience, say)
            annotations = _name_of_content(Path(temporary, 'new'))
            text = config_text(chosen, converted, annotations)
            location = folder / annotations
            if location.is_symlink() or not location.is_dir() or _name_of_content(location) != annotations:
                if os.path.lexists(location):  # not written by this function
                    os.replace(location, Path(temporary, 'former'))
                os.replace(Path(temporary, 'new'), location)
        with write_together(path.parent, [path.name]) as new:
            choices = choices_text(chosen, annotations, backbone, from_here, text)
            write_json(new / path.with_suffix(CHOICES).name, choices, indent=1)
            with atomic_write(new / path.name) as file:
                file.write(text.encode())
        _remove_unread(folder, path)
    size_text = f'{chosen.shape[0]} x {chosen.shape[1]} pixels, {chosen.epochs} epochs, batches of {chosen.batch}'
    size_text += chosen.reason
    command = command_of('train', str(path), '--work-dir', str(folder))
    say(f'{path}: {backbone}, {size_text}; change it as you like and train it by its name: {command}')
    return load_config(path, work_dir=str(folder))


def _as_given(images: Path, locations: Sequence[str]) -> Path:
    """Returns the folder of the images by the name of a location, which may be a link that is moved with the run."""
    for location in locations:
        folder = location if os.path.isdir(location) else os.path.dirname(location)
        if (real := Path(folder).resolve()) in (images, *images.parents):
            return Path(folder, images.relative_to(real))
    return images


def _name_of_content(folder: Path) -> str:
    """Returns the name of a folder of annotations: the SHA-256 of all its files, with their names."""
    whole = hashlib.sha256()
    for path in sorted(path for path in folder.rglob('*') if path.is_file()):
        whole.update(f'{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n'.encode())
    return f'annotations_{whole.hexdigest()[:12]}'


def _remove_unread(folder: Path, path: Path) -> None:
    """Removes unedited folders of annotations that neither the config nor mmengine's copy of it reads."""
    configs = ''.join(path.read_text() for path in (path, folder / path.name) if path.is_file())
    for leftover in folder.glob('annotations_' + '[0-9a-f]' * 12):
        if leftover.name not in configs and not leftover.is_symlink() and _name_of_content(leftover) == leftover.name:
            shutil.rmtree(leftover, ignore_errors=True)


def _check_unedited(
    path: Path, before: Mapping[str, Any], folder: Path, locations: Sequence[str], from_here: Sequence[str]
) -> None:
    """Raises ArgumentError if the config or its annotations were edited, or are of other sources.

    The edits, or the annotations of a run on other images, would be lost.
    """
    if not path.is_file():
        return
    annotations = folder / (before['annotations'] or '')
    if not before['is_unedited'] or (annotations.is_dir() and _name_of_content(annotations) != annotations.name):
        command = command_of('train', str(path), '--work-dir', str(folder))
        what = 'has been edited, or is of a former version'
        raise ArgumentError('work_dir', f'{path} {what}: train it by its name, {command}, or choose another')
    former = json.loads((annotations / LOCATIONS).read_bytes()) if annotations.is_dir() else locations
    if former != locations and before['data'] != from_here:
        raise ArgumentError(
            'work_dir', f'{path} is of {", ".join(former)}, not of {", ".join(locations)}: choose another'
        )


def _prepared(
    datasets: Sequence[Dataset],
    task: str,
    folder: Path,
    classes: Sequence[str] | None,
    ignore_index: Sequence[int],
    say: Any,
) -> dict[str, Converted]:
    """Writes the annotations of each task and all warnings as JSON; returns the conversion of each task."""
    tasks = all_tasks(datasets) if task == 'all' else [task]
    if not tasks:
        raise ArgumentError('task', 'only whole images are annotated: use --task classification')
    for part in tasks:
        if not is_installed(LIBRARY[part]):
            raise MissingLibraryError(f'--task {part} needs {LIBRARY[part]}, which is not installed')
    sets = {task: choose_dataset(datasets, task) for task in tasks}
    named = 'semantic' if 'semantic' in sets else tasks[0]  # of several, only maps may lack class names
    if classes and len(sets) > 1:
        if named != 'semantic':
            together = f'{" and ".join(tasks)} are learned together'
            raise ArgumentError('classes', f'{together}: name those of segmentation maps, or of one task by itself')
        say('classes: names of segmentation maps; the other tasks have all of theirs')
    for line in _not_learned(datasets, sets, TASKS if task == 'all' else tasks):
        say(line)
    if len(sets) > 1:
        for note in _share_splits(sets):
            say(note)
    root = root_of(image for name, dataset in sets.items() for image in dataset.labelled(name))
    options = dict(ignore_index=ignore_index, shared=len(sets) > 1, root=root)
    converted = {
        name: convert_dataset(dataset, name, folder, classes=classes if name == named else None, **options)
        for name, dataset in sets.items()
    }
    for name, conversion in converted.items():
        if 'train' not in conversion.splits:
            raise nothing_left(sets[name], f'no image for training has annotations for {name!r} that can be used')
    if len(sets) > 1:
        fill_splits(converted.values())
    for line in _report(sets, converted):
        say(line)
    write_warnings(folder / 'warnings.json', {id(dataset): dataset for dataset in sets.values()}.values())
    return converted


def _not_learned(datasets: Sequence[Dataset], sets: dict[str, Dataset], tasks: Sequence[str]) -> Iterator[str]:
    """Yields a line for each annotated task of a dataset that is not learned from it."""
    for dataset in datasets:
        for task in dataset.tasks():
            used = sets.get(task) or (sets.get('instance') if task == 'detection' else None)
            if task in tasks and used is not dataset:
                instead = f'but from {used.location}' if used else 'as no other task is learned beside it'
                yield f'{dataset.location}: {dataset.format}: {task} not learned from it, {instead}'


def _share_splits(sets: dict[str, Dataset]) -> Iterator[str]:
    """Gives each image one split for all tasks, that of the first dataset with a split; yields lines about changes."""
    shared: dict[Path, AnnotatedImage] = {}
    differing = []
    for task, dataset in sets.items():
        for image in dataset.labelled(task):
            first = shared.setdefault(image.path, image)
            if first.split and image.split and first.split != image.split:
                differing.append(f'{image.path}: {first.split}, not {image.split} as {dataset.location} says')
            first.split = first.split or image.split
    if differing:
        yield f'{len(differing)} images have two splits, of which the first counts: {differing[0]}'
    if note := assign_splits(list(shared.values())):
        yield note
    for dataset in sets.values():
        for path, image in dataset.images.items():
            image.split = shared[path].split if path in shared else image.split


def _report(sets: dict[str, Dataset], converted: dict[str, Converted]) -> Iterator[str]:
    """Yields lines about the annotations of each task, then about the problems of each dataset."""
    splits = {split for conversion in converted.values() for split in conversion.splits}
    for task, conversion in converted.items():
        dataset = sets[task]
        counts = f'{len(conversion.classes)} classes ({split_counts(conversion)})'
        yield f'{dataset.location}: {dataset.format}, {task}: {counts}'
        yield from (f'  {note}' for note in conversion.notes)
        if absent := ' or '.join(split for split in SPLITS if split in splits - conversion.splits.keys()):
            yield f'  no annotations for {task} in the split {absent}: not evaluated there'
    for dataset in {id(dataset): dataset for dataset in sets.values()}.values():
        yield from problem_lines(dataset, most=5)


def _choose(
    task: str,
    converted: dict[str, Converted],
    network: dict,
    start: Start,
    size: int | None,
    epochs: int | Budget | None,
    batch: int | None,
    patience: int | None,
    say: Any,
) -> Choices:
    sizes = np.concatenate([conversion.sizes for conversion in converted.values()])
    boxes = np.concatenate([conversion.boxes for conversion in converted.values()])
    reason = ''
    if size is None and isinstance(epochs, Budget):
        size, reason = size_in_time(network, sizes, boxes, task, epochs.left)
    size = default_size(sizes, boxes, task) if size is None else size
    if size < STRIDE:
        raise ArgumentError('size', f'expected {STRIDE} pixels or more, got {size}')
    count = max(conversion.splits.get('train', 1) for conversion in converted.values())
    base, is_deep = network.get('base_channels', WIDE), network.get('depth', 50) >= 50
    most = 32 if task == 'classification' else 4 if is_deep or is_narrow(network) or task == 'all' else 8
    shape = training_size(sizes, size)
    images = memory.training_times(network, shape) if isinstance(epochs, Budget) else None
    if images is not None:
        epochs = max(1, round(TRAINED * epochs.left / (images[0] * count)))
    elif not isinstance(epochs, int):
        epochs = int(np.clip(round(_SEEN / count), *_EPOCHS))
    if batch is None:
        usual = min(most, max(_LEAST_BATCH, min(count // 2, epochs * count // _STEPS.get(task, 1000))))
        seen = crop_of(shape) if task == 'semantic' else (size, size) if task == 'classification' else shape
        batch = fitting_batch(network, seen, usual, say)
        if batch < usual:
            reason = f' instead of {usual}, which would not fit the memory{reason}'
        elif batch < most:
            reason = f' instead of {most}, for more steps{reason}'
    rate = float(f'{learning_rate(network, is_deep, start) * (batch / most) ** 0.5:.2g}')
    weights, load_from = start
    return Choices(task, epochs, size, shape, network, base, is_deep, batch, rate, weights, patience, reason, load_from)


def fitting_batch(backbone: dict, size: tuple[int, int], batch: int, say: Any) -> int:
    """Returns ``batch``, or on a CPU the fewer images, 2 at least, that fit the memory; calls ``say`` if 2 do not.

    Args:
        backbone: Its config.
        size: Width and height of the images.
        batch: The most images.
        say: Called with a line.
    """
    free = memory.free_memory()
    if free is None:
        return batch
    process, image = memory.training_memory(backbone, size)
    fitting = min(batch, max(_LEAST_BATCH, int((free - process) // image)))
    if (needed := process + fitting * image) > free:
        say(
            f'memory: {fitting} images of {size[0]} x {size[1]} pixels may take {needed / 1e9:.1f} GB, of which '
            f'{free / 1e9:.1f} are free: if the training is killed, give a smaller --size or --backbone'
        )
    return fitting
