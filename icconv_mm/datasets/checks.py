"""Checks of COCO annotation files: a defective file gives one message instead of a traceback from inside a library.

The content of a file is checked only when building the dataset failed or left it empty: a good file costs nothing.
The built dataset is checked for what the libraries accept silently: its classes, by name.
"""

import difflib
import json
import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from icconv_mm.datasets import limits
from icconv_mm.datasets.reading import DatasetError, read_json
from icconv_mm.errors import MissingFileError, naming, short

_REQUIRED_FIELDS = {
    'images': {'id': int, 'file_name': str},
    'annotations': {'id': int, 'image_id': int, 'category_id': int},
    'categories': {'id': int, 'name': str},
}
_TOO_LARGE = 10**limits.NUMBER_LETTERS  # integers from here on can share a hash
NUMBERS = {int, float}  # types of JSON's numbers; bool is none
_MISSING = object()


class MissingDataError(DatasetError, MissingFileError):
    """A file or a folder of a dataset is missing."""


def check_coco_file(path: str | Path) -> dict:
    """Returns the content of a COCO annotation file; raises DatasetError, with file and field, for a defect."""
    content = read_coco(path)
    for field, i, defect in defective_entries(content):
        raise DatasetError(f'{path}: {field}[{i}]: {defect}')
    check_once(content, path)
    return content


def read_coco(path: str | Path, content: Any = None) -> dict:
    """Returns the content of a COCO annotation file; raises DatasetError if one of its three lists is missing.

    Args:
        path: The file.
        content: Its content, if it has been read.
    """
    try:
        content = read_json(path) if content is None else content
    except DatasetError as error:
        problem = str(error).removeprefix(f'{path}: ')
        raise DatasetError(f'{path}: not a COCO annotation file: {problem}') from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DatasetError(f'{path}: not a COCO annotation file: the top level is a {kind}, expected an object')
    for field in _REQUIRED_FIELDS:
        if not isinstance(content.get(field), list):
            names = ', '.join(map(short, content)) or 'nothing'
            raise DatasetError(f'{path}: not a COCO annotation file: no list {field!r}; found {names:.400}')
    return content


def defective_entries(
    content: Mapping[str, Any], fields: Mapping[str, Mapping[str, type]] = _REQUIRED_FIELDS
) -> Iterator[tuple[str, int, str]]:
    """Yields the invalid entries of a COCO file: the list, the entry's index in it, and the defect.

    Args:
        content: The content of the file.
        fields: The required fields of each list's entries, with their types.
    """
    for field, members in fields.items():
        for i, entry in enumerate(content[field]):
            if (defect := _entry_defect(entry, members)) is not None:
                yield field, i, defect
    known_ids = {
        member: {entry['id'] for entry in content[field] if isinstance(entry, dict) and is_id(entry.get('id'))}
        for field, member in (('images', 'image_id'), ('categories', 'category_id'))
        if member in fields['annotations']
    }
    for member, ids in known_ids.items():
        for i, entry in enumerate(content['annotations']):
            if isinstance(entry, dict) and (value := entry.get(member)) not in ids and is_id(value):
                yield 'annotations', i, f'{member} {value} is not in the file'


def check_measures(content: dict, path: str | Path) -> None:
    """Raises DatasetError if annotations lack the image or box sizes that training and COCO's metrics need.

    Args:
        content: Content of the annotation file, as :func:`check_coco_file` returns it.
        path: The annotation file.
    """
    for i, image in enumerate(content['images']):
        for side in ('width', 'height'):
            if not _are_numbers([image.get(side)]) or image[side] < 1:
                raise DatasetError(f'{path}: images[{i}]: {side!r} is {image.get(side)!r:.40}, expected pixels')
    for i, annotation in enumerate(content['annotations']):
        for field in ('bbox', 'area', 'iscrowd'):
            if annotation.get(field) is None:
                raise DatasetError(f'{path}: annotations[{i}]: no field {field!r}')
        if not _are_numbers([annotation['area']]) or annotation['area'] < 0:
            area = short(annotation['area'], 40)
            raise DatasetError(f"{path}: annotations[{i}]: 'area' is {area}, expected a number of 0 or more")
    warn_of_areas(content, path)


def warn_of_areas(content: Mapping[str, Any], path: str | Path) -> None:
    """Warns of objects with area 0 but a non-empty box: mmdet skips them in training, and their poses score 0."""
    annotations = content.get('annotations') or ()
    empty = [i for i, annotation in enumerate(annotations) if not annotation.get('iscrowd') and _lacks_area(annotation)]
    if empty:
        text = (
            f'{path}: {len(empty)} of {len(annotations)} annotations have "area" 0 and a box that is not empty, the '
            f'first is annotations[{empty[0]}]: mmdet learns none of them, and poses score 0'
        )
        print_log(text, logger='current', level=logging.WARNING)


def _lacks_area(annotation: Mapping[str, Any]) -> bool:
    box = annotation.get('bbox')
    return annotation.get('area') == 0 and _is_box(box) and box[2] > 0 and box[3] > 0


def pose_defect(annotation: Mapping[str, Any], *, needed: Sequence[str] = ('bbox',)) -> str | None:
    """Returns which field a person's keypoint annotation lacks; None if none.

    Args:
        annotation: An entry of a COCO file.
        needed: The required fields. In training, mmpose skips people without a box.
    """
    for field in needed:
        if annotation.get(field) is None:
            remedy = ', or set use_area=False of the metric, which then takes that of the box' * (field == 'area')
            return f'no {field!r}, which keypoints are trained and evaluated with{remedy}'
    return None


def check_people(content: Mapping[str, Any], path: str | Path, *, needed: Sequence[str]) -> None:
    """Raises DatasetError, naming file, image and annotation, if a person lacks a field of training or of a metric.

    Args:
        content: Content of the annotation file.
        path: The annotation file.
        needed: The required fields of every annotation.
    """
    images = {image['id']: image for image in content['images']}
    for annotation in content['annotations']:
        image = images.get(annotation['image_id'])  # mmpose reads no annotation without an image
        if image and (defect := pose_defect(annotation, needed=needed)):
            raise DatasetError(f'{location_of(annotation, image, path)}: {defect}')


def warn_of_lost_people(content: Mapping[str, Any], path: str | Path) -> None:
    """Warns of people whose image is not in the file: mmpose reads by image and skips them silently.

    Args:
        content: Content of the annotation file.
        path: The annotation file.
    """
    images = {image['id'] for image in content.get('images') or ()}
    people = [annotation for annotation in content.get('annotations') or () if annotation.get('keypoints')]
    if lost := sum(person['image_id'] not in images for person in people):
        text = f'{path}: mmpose leaves out {lost} of the {len(people)} people: of no image of the file'
        print_log(text, logger='current', level=logging.WARNING)


def location_of(annotation: Mapping[str, Any], image: Mapping[str, Any], path: str | Path) -> str:
    """Returns file, image and annotation as the beginning of a message."""
    return f'{path}: image {image["id"]} ({image["file_name"]}), annotation {annotation.get("id")}'


def explain_coco(path: str, classes: Sequence[str], where: str, *, empty: bool) -> None:
    """Raises DatasetError with the reason a COCO dataset cannot be built, if its annotation file is the reason.

    Args:
        path: The annotation file.
        classes: The expected class names.
        where: The dataset's name in the config.
        empty: Whether the built dataset has no image.
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


def category_names(path: str | Path) -> dict[int, str]:
    """Returns the category names of a COCO file by id, in its order; of a large file, it parses only the categories."""
    text = Path(path).read_bytes().decode()
    matches = list(re.finditer(r'"categories"\s*:\s*(?=\[)', text))
    if len(matches) == 1:
        categories, _ = json.JSONDecoder().raw_decode(text, matches[0].end())
    else:
        categories = json.loads(text)['categories']
    return {category['id']: category['name'] for category in categories}


def check_known(classes: Sequence[str], names: Iterable[str], where: str, source: str) -> None:
    """Raises DatasetError if a class of the config is not in the data while the data have classes not in the config.

    Args:
        classes: Class names by label, as in the config.
        names: All class names of the data.
        where: The dataset's name in the config.
        source: The file or folder that the data's class names come from.
    """
    names = list(names)
    others = [name for name in names if name not in classes]
    for name in classes if others else ():
        if name not in names:
            meant = difflib.get_close_matches(name, others, n=1, cutoff=0.5)
            hint = f'did you mean {meant[0]!r}?' if meant else f'there are {_short(names)}'
            raise DatasetError(f'{where}: metainfo.classes names {name!r}, which is not in {source}; {hint}')


def check_order(classes: Sequence[str], labels: Mapping[str, int], where: str, source: str) -> None:
    """Raises DatasetError if the class order of the data, from which libraries derive labels, swaps classes.

    Args:
        classes: Class names by label, as in the config.
        labels: The label of each class name in the data.
        where: The dataset's name in the config.
        source: The file or folder that the data's class names come from.
    """
    for name, label in labels.items():
        if classes[label] != name:
            missing = [name for name in classes if name not in labels]
            what = f'lacks {_short(missing)} of' if missing else 'has another order than'
            raise DatasetError(
                f'{where}: {source} {what} metainfo.classes, so that {name!r} would be learned as {classes[label]!r}: '
                f'set metainfo=dict(classes={sorted(labels, key=labels.get)})'
            )


def _entry_defect(entry: Any, members: Mapping[str, type]) -> str | None:
    if not isinstance(entry, dict):
        return f'expected an object, found {type(entry).__name__}'
    for member, kind in members.items():
        value = entry.get(member, _MISSING)
        if type(value) is kind and (kind is not int or -_TOO_LARGE < value < _TOO_LARGE):
            continue
        if value is _MISSING:
            return f'no field {member!r}'
        if not isinstance(value, kind) or isinstance(value, bool):
            return f'{member!r} is {short(value)}, expected {kind.__name__}'
        if kind is int:
            return f'{member!r} is {short(value, 40)}, of more than {limits.NUMBER_LETTERS} digits'
    box = entry.get('bbox')
    if box is not None and not _is_box(box):
        return f"'bbox' is {short(box, 100)}, expected [x, y, width, height], finite and not negative"
    keypoints = entry.get('keypoints')
    if keypoints is not None and 'image_id' in members and not (_are_numbers(keypoints) and len(keypoints) % 3 == 0):
        return f"'keypoints' is {short(keypoints, 100)}, expected [x1, y1, v1, ...], finite"
    if (crowd := entry.get('iscrowd', 0)) not in (0, 1):
        return f"'iscrowd' is {short(crowd, 40)}, expected 0 or 1"
    return None


def is_id(value: Any) -> bool:
    """Returns whether a value is an integer that cannot share its hash with many others."""
    return type(value) is int and -_TOO_LARGE < value < _TOO_LARGE


def _is_box(box: Any) -> bool:
    if not isinstance(box, list) or len(box) != 4 or not NUMBERS.issuperset(map(type, box)):
        return False
    x, y, width, height = box
    return -1e9 < x < 1e9 and -1e9 < y < 1e9 and 0 <= width < 1e9 and 0 <= height < 1e9  # False for NaN


def _are_numbers(values: Any) -> bool:
    if not isinstance(values, list):
        return False
    if not values or not NUMBERS.issuperset(map(type, values)):
        return not values
    # of a list with NaN, the sum is NaN, but perhaps not the largest number
    return min(values) > -1e9 and max(values) < 1e9 and sum(values) < math.inf


def check_once(content: Mapping[str, Any], path: str | Path) -> None:
    """Raises DatasetError if an id or a category name occurs more than once: COCO's tools keep the last entry only."""
    for field, member in (('images', 'id'), ('annotations', 'id'), ('categories', 'id'), ('categories', 'name')):
        values = (entry[member] for entry in content.get(field) or () if member in entry)
        for value, times in Counter(values).most_common(1):
            if times > 1:
                raise DatasetError(f'{path}: {times} {field} have the {member} {value!r:.60}')


def _short(names: Iterable[str], most: int = 6) -> str:
    names = list(names)
    shown = ', '.join(repr(name) for name in names[:most])
    return f'[{shown}{", ..." if len(names) > most else ""}]'
