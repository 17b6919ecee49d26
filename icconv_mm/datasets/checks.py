"""Checks of datasets, so that a wrong path or file is one sentence instead of a traceback from deep inside a library.

Paths are checked before anything is built. The content of an annotation file is looked at only when building the
dataset failed or left it empty: a good file costs nothing.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from icconv_mm.datasets.nesting import leaf_datasets
from icconv_mm.errors import InputError, MissingFileError, naming
from icconv_mm.utils.files import require_file, require_folder

_REQUIRED_FIELDS = {
    'images': {'id': int, 'file_name': str},
    'annotations': {'id': int, 'image_id': int, 'category_id': int},
    'categories': {'id': int, 'name': str},
}


class DatasetError(InputError):
    """A dataset cannot be used: a path is missing, a file has another format, or no image is left."""


class MissingDataError(DatasetError, MissingFileError):
    """A file or a folder of a dataset is missing."""


def check_paths(cfg: Mapping[str, Any], name: str) -> None:
    """Raise MissingDataError for the first path of a dataset config that does not exist.

    Wrappers are looked through; paths with a scheme (``s3://``) are left alone. ``name`` says where the config stands
    in the whole one, such as ``'train_dataloader.dataset'``.
    """
    for where, leaf in leaf_datasets(cfg, name):
        root = leaf.get('data_root') or ''
        if '://' in str(root):
            continue
        if root:
            require_folder(root, f'{where}.data_root', MissingDataError)
        if leaf.get('ann_file'):
            require_file(join_root(root, leaf['ann_file']), f'{where}.ann_file', MissingDataError)
        prefixes = leaf.get('data_prefix')
        for key, prefix in prefixes.items() if isinstance(prefixes, Mapping) else ():
            if prefix:
                require_folder(join_root(root, prefix), f"{where}.data_prefix['{key}']", MissingDataError)


def check_coco_file(path: str | Path) -> dict:
    """The content of a file; raise DatasetError, naming file and field, unless it is annotations in COCO format."""
    try:
        with naming(str(path), OSError):
            content = json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path}: not a COCO annotation file: not JSON ({error})') from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DatasetError(f'{path}: not a COCO annotation file: the top level is a {kind}, expected an object')
    for field, members in _REQUIRED_FIELDS.items():
        if not isinstance(content.get(field), list):
            found = ', '.join(repr(key) for key in content) or 'nothing'
            raise DatasetError(f'{path}: not a COCO annotation file: no list {field!r}; found {found}')
        for i, entry in enumerate(content[field]):
            _check_entry(entry, members, f'{path}: {field}[{i}]')
    _check_references(content, path)
    _check_once(content, path)
    return content


def check_measures(content: dict, path: str | Path) -> None:
    """Raise DatasetError unless annotations say how large images and boxes are, as training and COCO's metrics need.

    Args:
        content: Content of the annotation file, as :func:`check_coco_file` returns it.
        path: The file it is from.
    """
    for i, image in enumerate(content['images']):
        for side in ('width', 'height'):
            if not _are_numbers([image.get(side)]) or image[side] < 1:
                raise DatasetError(f'{path}: images[{i}]: {side!r} is {image.get(side)!r:.40}, expected pixels')
    for i, annotation in enumerate(content['annotations']):
        for field in ('bbox', 'area', 'iscrowd'):
            if field not in annotation:
                raise DatasetError(f'{path}: annotations[{i}]: no field {field!r}')
        if not _are_numbers([annotation['area']]):
            raise DatasetError(f"{path}: annotations[{i}]: 'area' is {annotation['area']!r:.40}, expected a number")


def explain_coco(path: str, classes: Sequence[str], where: str, *, empty: bool) -> None:
    """Raise DatasetError that says why a COCO dataset cannot be built, if its annotation file is the reason.

    Args:
        path: The annotation file.
        classes: The names of the classes to find in it.
        where: The dataset's name in the config.
        empty: Whether no image was left.
    """
    if '://' in path:
        return
    with naming(f'{where}.ann_file'):
        content = check_coco_file(path)
        check_measures(content, path)
    if not empty:
        return
    names = {category['id']: category['name'] for category in content['categories']}
    if not set(names.values()) & set(classes):
        raise DatasetError(
            f'{where}: none of the classes {_short(classes)} is a category of {path}, which has '
            f'{_short(names.values())}: set metainfo=dict(classes=...)'
        )
    if not any(names[annotation['category_id']] in classes for annotation in content['annotations']):
        raise DatasetError(
            f'{where}: none of the {len(content["images"])} images in {path} has a box of the classes '
            f'{_short(classes)}: images without boxes are kept only with filter_cfg=dict(filter_empty_gt=False)'
        )


def check_class_order(path: str | Path, classes: Sequence[str], labels: Mapping[int, int], where: str) -> None:
    """Raise DatasetError if categories that the file lacks have shifted the labels of the others.

    mmdet numbers the categories that it finds; a missing one moves every class after it.

    Args:
        path: The annotation file; read only if fewer categories than classes were found.
        classes: Class names by label.
        labels: The label that each category id got.
        where: The dataset's name in the config.
    """
    if len(labels) == len(classes):
        return
    if len(labels) > len(classes):
        check_coco_file(path)
        raise DatasetError(f'{where}: {path} has {len(labels)} categories for {len(classes)} classes')
    names = {category['id']: category['name'] for category in json.loads(Path(path).read_bytes())['categories']}
    shifted = [(names[i], classes[label]) for i, label in labels.items() if names[i] != classes[label]]
    if shifted:
        missing = [name for name in classes if name not in names.values()]
        category, label = shifted[0]
        raise DatasetError(
            f'{where}: {path} lacks the categories {_short(missing)} of metainfo.classes, so that labels shift '
            f'({category!r} would be learned as {label!r}): list only the categories of the file'
        )


def _check_entry(entry: Any, members: Mapping[str, type], name: str) -> None:
    if not isinstance(entry, dict):
        raise DatasetError(f'{name}: expected an object, found {type(entry).__name__}')
    for member, kind in members.items():
        if member not in entry:
            raise DatasetError(f'{name}: no field {member!r}')
        if not isinstance(entry[member], kind) or isinstance(entry[member], bool):
            raise DatasetError(f'{name}: {member!r} is {entry[member]!r}, expected {kind.__name__}')
    box = entry.get('bbox')
    if box is not None and not (_are_numbers(box, 4) and box[2] >= 0 and box[3] >= 0):
        raise DatasetError(f"{name}: 'bbox' is {box!r:.100}, expected [x, y, width, height], finite and not negative")
    keypoints = entry.get('keypoints')
    if keypoints is not None and 'image_id' in members and not (_are_numbers(keypoints) and len(keypoints) % 3 == 0):
        raise DatasetError(f"{name}: 'keypoints' is {keypoints!r:.100}, expected [x1, y1, v1, ...], finite")
    if (crowd := entry.get('iscrowd', 0)) not in (0, 1):
        raise DatasetError(f"{name}: 'iscrowd' is {crowd!r:.40}, expected 0 or 1")


def _are_numbers(values: Any, count: int | None = None) -> bool:
    if not isinstance(values, list) or (count is not None and len(values) != count):
        return False
    return all(isinstance(each, (int, float)) and not isinstance(each, bool) and abs(each) < 1e9 for each in values)


def _check_references(content: dict, path: str | Path) -> None:
    images = {image['id'] for image in content['images']}
    categories = {category['id'] for category in content['categories']}
    for i, annotation in enumerate(content['annotations']):
        for member, known in (('image_id', images), ('category_id', categories)):
            if annotation[member] not in known:
                raise DatasetError(f'{path}: annotations[{i}]: {member} {annotation[member]} is not in the file')


def _check_once(content: dict, path: str | Path) -> None:
    """Ids, and the names of categories, that several entries have: COCO's tools take the last of them."""
    for field, member in (('images', 'id'), ('annotations', 'id'), ('categories', 'id'), ('categories', 'name')):
        for value, times in Counter(entry[member] for entry in content[field]).most_common(1):
            if times > 1:
                raise DatasetError(f'{path}: {times} {field} have the {member} {value!r:.60}')


def join_root(root: str, path: str) -> str:
    """The path that a dataset makes of ``data_root`` and a path in its config; an absolute one stays as it is."""
    return str(path) if not root or '://' in str(path) else str(Path(root, path))


def _short(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    shown = ', '.join(repr(name) for name in names[:most])
    return f'[{shown}{", ..." if len(names) > most else ""}]'
