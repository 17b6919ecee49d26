"""Reads YOLO: a file of names, with splits or without, and a text file of boxes, polygons or keypoints for each image.

The names are in Ultralytics' ``data.yaml``, in darknet's ``obj.names`` beside an ``obj.data``, or in a ``classes.txt``.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, followed, followed_folder, is_text, located, split_of
from icconv_mm.app.annotations.points import numbered
from icconv_mm.app.annotations.segmentations import as_segmentation
from icconv_mm.datasets import limits
from icconv_mm.datasets.reading import DatasetError, fault_of, head, mentions, read_json, read_text, read_yaml
from icconv_mm.errors import short
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_LOOKED_AT = 50  # images whose text files are looked at, where no YAML says that they are YOLO's
_LINE = re.compile(r'\s*[0-9]+([ \t]+-?[0-9.]+(e-?[0-9]+)?){4,}[ \t]*([\r\n]|$)')
_NAMES = ('classes.txt', 'names.txt', 'predefined_classes.txt', 'classification.txt')  # the last is ISAT's
_KEYS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}


def yolo_sources(files: Files) -> Iterator[tuple]:
    """Yields the YAML files that have ``names`` and the path of a split; where there is none, other files of names."""
    contents = {path: yaml_of(path, files) for path in files.labels('.yaml', '.yml')}
    contents = {path: content for path, content in contents.items() if 'names' in content}
    whole = [path for path, content in contents.items() if any(_splits_in(content).values())]
    for path in whole:
        yield 'YOLO', path, partial(_read_set, path, contents[path], _splits_in(contents[path]))
    if whole:
        return
    for path in files.labels('.data'):
        values = dict(re.findall(r'^[ \t]*(\w+)[ \t]*=[ \t]*(.*\S)', files.text(path), re.M))
        names = located(values.get('names', ''), [path.parent, path.parent.parent])
        if names is not None and any(_splits_in(values).values()):
            whole.append(path)
            yield 'YOLO', path, partial(_read_set, path, {'names': _lines(names)}, _splits_in(values))
    if whole or not has_yolo_labels(files):
        return
    for path in files.labels('.names') + files.labels('.txt'):
        if path.suffix == '.names' or path.name in _NAMES:
            contents[path] = {'names': _lines(path), **_keypoints_of_label_studio(path.with_name('notes.json'))}
    names = [content['names'] for content in contents.values()]
    of_all = len(contents) == 1 or (names and all(name == names[0] for name in names))
    for path in list(contents)[: 1 if of_all else None]:
        folder = files.root if of_all else path.parent
        yield 'YOLO', path, partial(_read_set, path, contents[path], {'': [str(folder)]})


def _splits_in(content: Mapping[str, Any]) -> dict[str, list]:
    """Returns the folders and lists of images that a YAML or an ``obj.data`` names, by split."""
    given = {split: [content[key] for key in keys if content.get(key)] for split, keys in _KEYS.items()}
    return {split: [path for entry in entries for path in _as_list(entry)] for split, entries in given.items()}


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def _keypoints_of_label_studio(path: Path) -> dict:
    """Returns the keypoints in the ``notes.json`` that Label Studio writes beside ``classes.txt``, as in a YAML."""
    content = read_json(path) if path.is_file() and mentions(head(path), 'categories', 'keypoints') else {}
    categories = content.get('categories') if isinstance(content, dict) else None
    names = categories[0].get('keypoints') if isinstance(categories, list) and isinstance(categories[0], dict) else None
    return {'kpt_shape': [len(names), 3], 'kpt_names': names} if isinstance(names, list) and names else {}


def has_yolo_labels(files: Files) -> bool:
    """Returns whether the first images have text files whose lines are as YOLO's."""
    labels = [_labels_of(path) for path in islice(files.each_ending(*IMAGE_SUFFIXES), _LOOKED_AT)]
    return any(_LINE.match(head(path)) for path in labels if path.is_file())


def yaml_of(path: Path, files: Files, *keys: str) -> dict:
    """Returns the mapping in a dataset's YAML file; empty if it holds no mapping or belongs to another program.

    Args:
        path: The file.
        files: The files of the dataset; they record a warning for an unreadable file that looks like a dataset's.
        keys: Keys that identify a dataset's file.

    Raises:
        DatasetError: The user named the file, and it cannot be read.
    """
    keys = keys or ('names', 'classes')
    is_named = path == files.only
    start = head(path, limits.YAML_BYTES)
    if not (is_named or mentions(start, *keys)):
        return {}
    try:
        return read_yaml(path)
    except DatasetError as error:
        if is_named:
            raise
        splits = [key for yaml_key in _KEYS.values() for key in yaml_key]
        looks_so = all(re.search(rf'^["\']?(?:{"|".join(key)})["\']?\s*:', start, re.M) for key in (keys, splits))
        if looks_so:
            files.warnings.warn_once(path, fault_of(error), is_left_out=True)
        return {}


def _read_set(path: Path, content: dict, splits: Mapping[str, list]) -> Dataset:
    """Reads a dataset.

    Args:
        path: The file of the names.
        content: Its content as in a ``data.yaml``.
        splits: Folders and lists of images by split; without one, that of the images' folders.

    Raises:
        DatasetError: Its names or keypoints are not in YOLO's form, or no image of any split exists.
    """
    dataset = Dataset('YOLO', path)
    names = content['names']
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(re.fullmatch('[0-9]{1,9}', str(key)) for key in names):
        raise DatasetError(f'{path}: names is {short(names)}, expected a list, or a mapping of numbers to names')
    sizes = {}
    for key, name in sorted(names.items(), key=lambda item: int(item[0])):
        if isinstance(name, (str, int, float)) and str(name).strip():
            sizes[int(key)] = dataset.add_class(str(name))
        else:
            dataset.warn(path, f'names[{key}] is {short(name, 40)}, no name', is_left_out=True)
    shape = content.get('kpt_shape')
    if shape is not None:
        most = limits.KEYPOINTS
        if not (isinstance(shape, list) and len(shape) == 2 and type(shape[0]) is int and shape[1] in (2, 3)):
            raise DatasetError(f'{path}: kpt_shape is {short(shape)}, expected [number of keypoints, 2 or 3]')
        if not 1 <= shape[0] <= most:
            raise DatasetError(f'{path}: kpt_shape is {short(shape)}, expected 1 to {most} keypoints')
        given = content.get('kpt_names') or content.get('node_names') or content.get('keypoints')
        given = next(iter(given.values())) if isinstance(given, dict) else given
        if not (isinstance(given, list) and len(given) >= shape[0]):
            if given:
                dataset.warn(path, f'keypoints are {short(given)}, expected {shape[0]} names: not used')
            given = numbered(shape[0])
        dataset.keypoints = list(map(str, given))[: shape[0]]
        flips = content.get('flip_idx') or []
        dataset.flip_indices = list(flips) if isinstance(flips, list) else [flips]
        if len(dataset.flip_indices) > 1 and dataset.flip_indices == list(range(len(dataset.flip_indices))):
            dataset.warn(path, 'flip_idx swaps nothing, as some tools write for any keypoints: their names decide')
            dataset.flip_indices = []
        sigmas = content.get('kpt_oks_sigmas') or []
        is_one_each = isinstance(sigmas, list) and len(sigmas) == shape[0]
        if is_one_each and all(type(sigma) in (int, float) and 0 < sigma < math.inf for sigma in sigmas):
            dataset.sigmas = sigmas
        elif sigmas:
            dataset.warn(path, f'kpt_oks_sigmas is {short(sigmas)}, expected {shape[0]} numbers above 0: not used')
    is_named = bool(content.get('skip_if_label_file_missing'))
    if not splits.get('train') and '' not in splits:
        dataset.warn(path, 'has no "train", the images to learn from')
    for split, locations in splits.items():
        for location in locations:
            _read_split(dataset, path, content, str(location), split, sizes, shape, is_named)
    if not dataset.images and not dataset.lost:
        raise DatasetError(f'{path}: none of the images of train, val and test is there')
    return dataset


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _read_split(
    dataset: Dataset, path: Path, content: dict, location: str, split: str, names: dict, shape: list | None, skip: bool
) -> None:
    root = located(str(content['path']), [path.parent]) if content.get('path') else None
    roots = [folder for folder in (root, path.parent) if folder is not None]
    target = located(location, roots)
    if target is None:
        dataset.missing.append(f'{path}: {split}: {location}')
        return
    beside = _labels_of(target / 'any.png').parent
    read: dict[Path, set[str]] = {beside: set()} if beside != target else {}  # names of annotation files by folder
    for image_path in _listed_images(dataset, target, [*roots, target.parent]):
        labels = _labels_of(image_path)
        read.setdefault(labels.parent, set()).add(labels.name)
        real = followed(image_path)
        split_of_image = (
            split or split_of(image_path.relative_to(target).parent) if image_path.is_relative_to(target) else split
        )
        with dataset.reading(labels, real, split_of_image):
            lines = read_text(labels).splitlines() if os.path.lexists(labels) else None
            image = dataset.image(real, split_of_image)
            image.annotations = None if lines is None and skip else []
            if lines is None:
                what = f'left out, as {path.name} says' if skip else 'taken as an image without objects'
                dataset.warn(image_path, f'has no {labels.name if skip else labels}: {what}')
            for number, line in enumerate(lines or (), 1):
                if line.strip():
                    _read_line(dataset, image, line.split(), f'{labels}: line {number}', names, shape)
    if followed(target).is_dir():  # a list may skip images on purpose
        for folder, split_of_image in read.items():
            dataset.missing += [f'{labels}: the image' for labels in _without_image(folder, split_of_image)]


def _without_image(folder: Path, images_known: set[str]) -> list[Path]:
    """Returns the annotation files in a folder that belong to no known image."""
    if folder.name == 'images' or not folder.is_dir():
        return []
    names = (name for name in sorted(os.listdir(folder)) if name.endswith('.txt') and is_text(name))
    others = (folder / name for name in names if name not in images_known)
    return [path for path in others if not (text := head(path)).strip() or _LINE.match(text)]


def _listed_images(dataset: Dataset, target: Path, roots: list[Path]) -> Iterator[Path]:
    """Yields the images of a folder or of a text file's list, with the paths from which their annotations are found."""
    real = followed(target)
    if real.is_dir():
        below = Files(real)
        dataset.warnings += below.warnings
        for path in below.ending(*IMAGE_SUFFIXES):
            yield target / path.relative_to(real)
        return
    for line in filter(None, map(str.strip, read_text(real).splitlines())):
        if (path := located(line, roots)) is not None:
            yield path
        else:
            dataset.missing.append(f'{target}: {line}')


def _labels_of(path: Path) -> Path:
    """Returns the annotation file by YOLO's rule: ``images`` in the path becomes ``labels``; else beside the image."""
    name, folder = f'{path.stem}.txt', _labels_folder(path.parent)
    if folder is None:
        return path.with_name(name)
    labels = followed_folder(folder) / name
    if os.path.lexists(labels):
        return labels
    return beside if (beside := path.with_name(name)).is_file() else labels  # darknet's are beside


@lru_cache(1 << 12)
def _labels_folder(images: Path) -> Path | None:
    """Returns the folder in which the last ``images`` is ``labels``; None if the path has none."""
    parts = list(images.parts)
    if 'images' not in parts:
        return None
    i = len(parts) - 1 - parts[::-1].index('images')
    return Path(*parts[:i], 'labels', *parts[i + 1 :])


def _read_line(dataset: Dataset, image: Any, words: list[str], where: str, names: dict, shape: list | None) -> None:
    """Adds the object of a line, or records a warning."""

    def damaged(what: str) -> None:
        dataset.leave_out(where, what, image.path, image.split)

    try:
        label, *values = map(float, words)
    except ValueError:
        return damaged(f'{" ".join(words[:9])[:40]!r} are no numbers')
    if not (math.isfinite(label) and all(map(math.isfinite, values))):
        return damaged(f'{" ".join(words[:9])[:40]!r} are not finite')
    if label not in names:
        return damaged(f'class {label:g} has no name')
    count = shape[0] * shape[1] if shape else 0
    is_polygon = not shape and len(values) >= 6 and len(values) % 2 == 0
    if not shape and len(values) > 6 and len(values) % 3 == 1 and {*values[6::3]} <= {0, 1, 2} and 2 in values[6::3]:
        return damaged('has keypoints, and no YAML gives their kpt_shape')
    if not (is_polygon or len(values) in (4 + count, 5 + count)):
        return damaged(f'{len(words)} values: neither a box, nor a segmentation, nor keypoints')
    if max(map(abs, values[:4])) > 1.5:
        return damaged(f'{values[:4]} are no shares of the image, which YOLO writes')
    width, height = image.size
    annotation = Annotation(names[label], location=where)
    if is_polygon:
        segmentation = [[value * (height if i % 2 else width) for i, value in enumerate(values)]]
        annotation.segmentation = as_segmentation(segmentation, image.size, dataset, where, image)
    else:
        x, y, w, h = values[:4]
        annotation.box = [x * width - w * width / 2, y * height - h * height / 2, w * width, h * height]
        if count:
            step, points = shape[1], []
            for x, y, *seen in (values[i : i + step] for i in range(4, 4 + count, step)):
                v = int(seen[0]) if seen else 2 * int(x > 0 or y > 0)
                points += [x * width, y * height, v] if v else [0, 0, 0]
            annotation.keypoints = points if any(points[2::3]) else None
    if annotation.box or annotation.segmentation:
        image.annotations.append(annotation)
    return None
