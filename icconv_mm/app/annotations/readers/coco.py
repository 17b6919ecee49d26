"""Reads COCO (boxes, polygons, RLE, keypoints with any names), COCO panoptic and COCO results."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset, held_out_first
from icconv_mm.app.annotations.images_on_disk import Files, split_of
from icconv_mm.app.annotations.map_conversion import read_class_ids
from icconv_mm.app.annotations.points import numbered, predicted_keypoints
from icconv_mm.app.annotations.readers.mpii import read_mpii
from icconv_mm.app.annotations.segmentations import (
    as_segmentation,
    box_of_keypoints,
    fit_to_image,
    is_area,
    measure,
    written_size,
)
from icconv_mm.datasets.checks import NUMBERS, check_once, defective_entries, is_id, read_coco
from icconv_mm.datasets.reading import DatasetError, fault_of, head, mentions, read_json
from icconv_mm.errors import short

_LISTS = ('images', 'annotations', 'categories')
_FIELDS = ('file_name', 'image_id', 'category_id', 'bbox', 'segments_info')  # fields that only COCO files have
_ENTRIES = {  # annotations may lack an "id", as labelformat writes them
    'images': {'id': int, 'file_name': str},
    'annotations': {'image_id': int, 'category_id': int},
    'categories': {'id': int, 'name': str},
}
_PANOPTIC = {
    'images': {'id': int, 'file_name': str},
    'annotations': {'file_name': str, 'segments_info': list},
    'categories': {'id': int, 'name': str},
}
_ImageEntry = tuple[int, int, str, tuple[int, int] | None]  # its index, id, file name, and width and height if given
_SAME = 0.7  # IoU of the boxes of two people's annotations of one object
_BESIDE_INSTANCES = ('stuff', 'labels', 'image_info')  # what COCO and datumaro write of the same images
_KEPT = 1 << 29  # bytes of files whose content is kept until they are read
_LOOKED_AT = 1 << 26  # bytes read of an invalid JSON file, to tell whether it is a damaged annotation file


def coco_sources(files: Files) -> Iterator[tuple]:
    """Yields COCO files by content; those of one dataset (``..._train.json``, ``..._val.json``) are one source."""
    groups: dict[tuple, list[Path]] = {}
    for path in files.labels('.json'):
        kind = kind_of_json(path, files) or ('COCO' if path == files.only else '')
        if kind in _READERS:
            plain = path.stem.lower()
            for word in ('training', 'train', 'validation', 'valid', 'val', 'testing', 'test'):
                plain = plain.replace(word, '*')
            folder = path.parent.parent if split_of(path.parent.name) else path.parent  # Roboflow: train/..., valid/...
            groups.setdefault((kind, folder, plain), []).append(path)
    for (kind, folder, plain), paths in groups.items():
        beside = groups.get((kind, folder, re.sub(f'^({"|".join(_BESIDE_INSTANCES)})', 'instances', plain)))
        if beside not in (None, paths):
            files.warnings.warn(paths[0], f'not read, as {beside[0].name} is beside it: name the file to read it')
            continue
        location = paths[0] if len(paths) == 1 else folder
        yield kind, location, partial(_all, read=_READERS[kind], kind=kind, paths=paths, files=files, location=location)


def kind_of_json(path: Path, files: Files) -> str:
    """Returns the kind of a JSON file: ``'COCO'``, ``'COCO panoptic'``, ``'COCO results'``, ``'MPII'``, ``'LabelMe'``,
    ``'Label Studio'``, or '' for others.
    """
    if path not in files.kinds:
        files.kinds[path] = _kind_of_json(path, files)
    return files.kinds[path]


def _kind_of_json(path: Path, files: Files) -> str:
    start = head(path)
    if start.lstrip('\ufeff \t\r\n')[:1] == '[':
        if mentions(start, 'data') and mentions(start, 'was_cancelled', 'completed_by', 'result'):
            return 'Label Studio'
        if mentions(start, 'image_id') and path.name.startswith('predictions.') and _images_of(path).is_file():
            return 'COCO results'
        return 'MPII' if mentions(start, 'joints', 'joints_vis') else ''
    if mentions(start, 'shapes', 'imagePath'):
        return 'LabelMe'
    try:
        content = read_json(path)
    except DatasetError as error:  # a file that looks like a format is refused or skipped when it is read
        text = head(path, _LOOKED_AT)
        if mentions(text, 'shapes'):
            return 'LabelMe'
        if mentions(text, *_LISTS) and mentions(text, *_FIELDS):
            return 'COCO'
        problem = str(error).removeprefix(f'{path}: ')
        if mentions(text, *_LISTS):
            files.warnings.warn(path, f'looks like annotations, and cannot be used: {problem}', is_left_out=True)
        else:  # from another program
            files.warnings.warn(path, f'{problem}: not read')
        return ''
    missing = [key for key in _LISTS if not (isinstance(content, dict) and key in content)]
    # captions lack categories, and lists of test images lack annotations
    if len(missing) == 1 and not path.name.startswith('images.'):
        files.warnings.warn(path, f'has no list {missing[0]!r}, as COCO has: not read')
    if missing:
        return ''  # captions, results
    annotations = content['annotations'][:10] if isinstance(content['annotations'], list) else []
    is_panoptic = any(isinstance(annotation, dict) and 'segments_info' in annotation for annotation in annotations)
    if sum(entry.stat().st_size for entry in (*files.contents, path)) <= _KEPT:
        files.contents[path] = content  # half of the time to read a file is its decoding
    return 'COCO panoptic' if is_panoptic else 'COCO'


def _all(read: Any, kind: str, paths: list[Path], files: Files, location: Path) -> Dataset:
    dataset = Dataset(kind, location)
    for path in paths:
        earlier, dataset.images = dataset.images, {}
        read(dataset, path, files)
        _unite(dataset, earlier, path, files)
    return dataset


def _unite(dataset: Dataset, earlier: dict[Path, AnnotatedImage], path: Path, files: Files) -> None:
    """Adds the images of earlier files; an image in several files keeps the annotations of one split only.

    It is the split of the image's folder, if it has one: a file may refer to it because its own image is missing.
    """
    shared = sorted(earlier.keys() & dataset.images.keys())
    if shared:
        what = f'{len(shared)} of its images are in another file of this set as well'
        dataset.warn(path, f'{what}, the first: {shared[0]}: each has the annotations of one of them')
    images, dataset.images = dataset.images, earlier | dataset.images
    for location in shared:
        splits = {image.split: image for image in (images[location], earlier[location])}
        of_folder = files.split_of_folders(location)
        dataset.images[location] = splits[of_folder if of_folder in splits else held_out_first(splits)]


def _coco(dataset: Dataset, path: Path, files: Files) -> None:
    """Reads one file in COCO format.

    Raises:
        DatasetError: The file has another format.
    """
    _read_content(dataset, path, read_coco(path, files.contents.pop(path, None)), files)


def _images_of(results: Path) -> Path:
    """Returns the file beside COCO results with their images and categories: ``images.json``, ``images.TASK.json``."""
    return results.with_name(results.name.replace('predictions', 'images', 1))


def _read_results(dataset: Dataset, path: Path, files: Files) -> None:
    """Reads predictions, as ``tools/infer.py`` writes them; people without a shown keypoint are left out."""
    content, results = read_json(_images_of(path)), read_json(path)
    shown = []
    for i, entry in enumerate(results):
        if isinstance(entry, dict):
            entry['id'] = i + 1
            points = entry.get('keypoints')
            if points and isinstance(points, list) and NUMBERS.issuperset(map(type, points)):
                entry['keypoints'] = predicted_keypoints(points)
                if not (entry['keypoints'] or entry.get('bbox') or entry.get('segmentation')):
                    continue
        shown.append(entry)
    _read_content(dataset, path, {**content, 'annotations': shown}, files)


def _read_content(dataset: Dataset, path: Path, content: dict, files: Files) -> None:
    split = split_of(path.relative_to(files.root))
    defects = _defects(content, _ENTRIES)
    names = _names(dataset, path, content, defects['categories'])
    _take_keypoints(dataset, [category for category in content['categories'] if isinstance(category, dict)], path)
    entries = _images_by_id(dataset, path, content, defects['images'], files, split)
    _say_defects(dataset, path, content, defects, split, {i: image.path for i, (image, _) in entries.items()})
    areas: list[tuple[str, Any]] = []
    of_images: dict[int, tuple[AnnotatedImage, tuple[int, int], str, list[Annotation]]] = {
        number: (image, written or image.size, image.path.name, []) for number, (image, written) in entries.items()
    }
    defective, before = defects['annotations'], f'{path}: annotations['
    for i, entry in enumerate(content['annotations']):
        if i in defective or (listed := of_images.get(entry['image_id'])) is None:
            continue
        image, size, file_name, annotations = listed
        where = f'{before}{i}] of {file_name}'
        try:
            name = names.get(entry['category_id'])
            if name is None:
                raise DatasetError(f'its category {entry["category_id"]} has no name')
            annotation = _coco_annotation(dataset, entry, name, image, size, where, areas)
        except Exception as error:
            dataset.leave_out(where, fault_of(error), image.path, split)
        else:
            if annotation is not None:
                annotations.append(annotation)
    for image, size, _, annotations in of_images.values():
        _add_entry(dataset, image, annotations, size, path)
    if areas:
        where, area = areas[0]
        more = f', as of {len(areas) - 1} others in this file' if len(areas) > 1 else ''
        what = f'"area" is {short(area, 40)}, no number of pixels that an object can have'
        dataset.warn(where, f'{what}: that of its mask or its box is taken{more}')
    for image, written in {id(image): (image, written) for image, written in entries.values()}.values():
        fit_to_image(dataset, image, written, path)


def _defects(content: dict, *fields: dict) -> dict[str, dict[int, str]]:
    """Returns the defects of invalid entries, by list and index."""
    defects: dict[str, dict[int, str]] = {field: {} for field in _LISTS}
    for field, i, defect in defective_entries(content, *fields):
        defects[field].setdefault(i, defect)
    return defects


def _say_defects(
    dataset: Dataset,
    path: Path,
    content: dict,
    defects: dict[str, dict[int, str]],
    split: str,
    images: Mapping[int, Path] = MappingProxyType({}),
) -> None:
    """Records a warning for each invalid entry, with the image that loses it, and for duplicate annotation ids."""
    for field, numbers in defects.items():
        for i, defect in numbers.items():
            image_id = content[field][i].get('image_id') if isinstance(content[field][i], dict) else None
            image = images.get(image_id) if isinstance(image_id, int) else None
            dataset.leave_out(f'{path}: {field}[{i}]', defect, image, split)
    entries, bad = content['annotations'], defects['annotations']
    good = [i for i, entry in enumerate(entries) if i not in bad and 'id' in entry]
    ids = (entries[i]['id'] for i in good)
    if (shared := len(good) - len({entry_id if is_id(entry_id) else short(entry_id) for entry_id in ids})) > 0:
        first = {short(entries[i]['id']): i for i in reversed(good)}
        again = [i for i in good if i != (same := first[short(entries[i]['id'])]) and entries[i] == entries[same]]
        bad.update(dict.fromkeys(again, 'is there twice'))  # PyLabel repeats them
        if again:
            dataset.warn(path, f'{len(again)} annotations are there twice: read once')
        if shared > len(again):
            dataset.warn(path, f'{shared - len(again)} annotations have the "id" of another: all are read')


def _names(dataset: Dataset, path: Path, content: dict, defects: Collection[int]) -> dict[int, str]:
    """Returns the name of each category id.

    Raises:
        DatasetError: Several categories that have objects have the same id or name.
    """
    categories = [(i, category) for i, category in enumerate(content['categories']) if i not in defects]
    unused = _unused_doubles([category for _, category in categories], content)
    for i, category in categories:
        if id(category) in unused:
            what = f'{category["name"]!r} is the name of another category as well, and this one has no object: no class'
            dataset.warn(f'{path}: categories[{i}]', what)
    categories = [(i, category) for i, category in categories if id(category) not in unused]
    check_once({'categories': [category for _, category in categories]}, path)
    parents = {str(category.get('supercategory')) for _, category in categories}
    names = {}
    for i, category in categories:
        parent = category.get('supercategory')
        others = parents - ({'none'} if parent == 'none' else set())
        is_root = others == {category['name']} != {parent} and len(categories) > 1
        if not category['name'].strip():
            dataset.warn(f'{path}: categories[{i}]', 'has a blank name', is_left_out=True)
        elif is_root and not _is_used(category['id'], content):
            what = 'the supercategory of all others, as Roboflow writes for a project, and has no object: no class'
            dataset.warn(f'{path}: categories[{i}]', f'{category["name"]!r} is {what}')
        else:
            names[category['id']] = dataset.add_class(category['name'])
    return names


def _unused_doubles(categories: list[dict], content: dict) -> set[int]:
    """Returns ``id()`` of categories without an object that have the name of another; of those without, the last stays.

    Roboflow writes the project as the first category, which may be called like a class.
    """
    by_name: dict[str, list[dict]] = {}
    for category in categories:
        by_name.setdefault(category['name'], []).append(category)
    doubles = {}
    for same in by_name.values():
        unused = [id(category) for category in same if len(same) > 1 and not _is_used(category['id'], content)]
        doubles.update(dict.fromkeys(unused[: len(same) - 1]))
    return set(doubles)


def _is_used(category_id: int, content: dict) -> bool:
    return any(
        isinstance(annotation, dict) and annotation.get('category_id') == category_id
        for annotation in content['annotations']
    )


def _images_by_id(
    dataset: Dataset, path: Path, content: dict, defects: dict[int, str], files: Files, split: str
) -> dict[int, tuple[AnnotatedImage, tuple[int, int] | None]]:
    """Returns image and written size, by id, of every image that exists and has its annotations' size.

    If one image has several entries, those of another size are skipped.
    """
    usable: dict[int, _ImageEntry] = {}
    for i, entry in enumerate(content['images']):
        if i in defects:
            continue
        try:
            written, name = _written(entry), entry['file_name']
            if (same := usable.setdefault(entry['id'], (i, entry['id'], name, written)))[2] != name:
                raise DatasetError(f'has the id {entry["id"]} of images[{same[0]}]')
        except Exception as error:
            dataset.leave_out(f'{path}: images[{i}]', fault_of(error), split=split)
    locations = files.images((name for _, _, name, _ in usable.values()), *_near(path, split), split=split)
    by_location: dict[Path, list[_ImageEntry]] = {}
    for entry in usable.values():
        if (location := locations.get(entry[2])) is None:
            dataset.missing.append(f'{path}: {entry[2]}')
        else:
            by_location.setdefault(location, []).append(entry)
    images = {}
    for location, entries in by_location.items():
        image = dataset.image(location, split)
        image.annotations = image.annotations or []
        if len(entries) > 1:
            entries = _of_one_size(dataset, path, image, entries)
        for _, number, _, written in entries:
            images[number] = image, written
    return images


def _near(path: Path, split: str) -> list[Path]:
    """Returns the folders near an annotation file that are searched first for its images."""
    above = path.parent.parent
    return [path.parent, above, path.parent / 'images', above / 'images', *([path.parent / split] if split else [])]


def _of_one_size(dataset: Dataset, path: Path, image: AnnotatedImage, entries: list[_ImageEntry]) -> list[_ImageEntry]:
    """Returns those entries of one image that have its size."""
    fitting = [entry for entry in entries if entry[3] in (None, image.size)]
    fitting = fitting or [entry for entry in entries if entry[3] == image.size[::-1]] or entries[:1]
    for entry in entries:
        if entry not in fitting:
            i, _, _, (width, height) = entry
            has = f'{image.path} has {image.size[0]} x {image.size[1]}'
            dataset.leave_out(f'{path}: images[{i}]', f'"width" and "height" are {width} x {height}, but {has}')
    return fitting


def _add_entry(
    dataset: Dataset, image: AnnotatedImage, annotations: list[Annotation], size: tuple[int, int], path: Path
) -> None:
    """Adds the objects of an entry to its image, unless most of them are the same as those of an earlier entry.

    Label Studio lists an image once for each person who annotated it, the newest first (``annotation_result_from_task``
    of label-studio-sdk 2.1.2).
    """
    from pycocotools.mask import iou

    before = image.annotations
    if annotations and before:
        for annotation in annotations + before:
            measure(annotation, size)
        boxes = [
            np.array([annotation.box for annotation in annotations_of_entry], dtype=float)
            for annotations_of_entry in (annotations, before)
        ]
        is_same_class = np.array([[one.name == other.name for other in before] for one in annotations])
        same = int(((iou(*boxes, [0] * len(before)) * is_same_class).max(1) > _SAME).sum())
        is_again = 2 * same >= max(len(annotations), len(before))
        what = 'the same objects: the first ones are taken' if is_again else 'other objects: all are taken'
        dataset.warn(image.path, f'is listed again in {path.name}, with {what}')
        annotations = [] if is_again else annotations
    image.annotations = before + annotations


def _written(entry: dict) -> tuple[int, int] | None:
    """Returns width and height given by an entry; None if it gives none."""
    return written_size(entry.get('width'), entry.get('height'), ('"width"', '"height"'))


def _coco_annotation(
    dataset: Dataset,
    entry: dict,
    name: str,
    image: AnnotatedImage,
    size: tuple[int, int],
    where: str,
    areas: list[tuple[str, Any]],
) -> Annotation | None:
    """Returns the annotation of a COCO entry; appends an invalid area to ``areas``."""
    area, crowd = entry.get('area'), bool(entry.get('iscrowd') or entry.get('ignore'))
    if area is not None and not is_area(area, size):
        areas.append((where, area))
        area = None
    segmentation = as_segmentation(entry.get('segmentation'), size, dataset, where, image)
    box, score = entry.get('bbox'), entry.get('score')
    annotation = Annotation(name, box, segmentation, crowd=crowd, area=area, location=where, score=score)
    keypoints = entry.get('keypoints')
    if keypoints and any(keypoints[2::3]):
        dataset.keypoints = dataset.keypoints or numbered(len(keypoints) // 3)
        if len(keypoints) != 3 * (count := len(dataset.keypoints_of(name)[0])):
            what = f'"keypoints" has {len(keypoints)} values, expected 3 x {count}'
            dataset.leave_out(where, what, image.path, image.split)
        else:
            annotation.keypoints = keypoints
            annotation.box = annotation.box or box_of_keypoints(keypoints, image.size)
    if annotation.box is None and annotation.segmentation is None:
        raise DatasetError('has neither a box, nor a mask, nor an annotated keypoint')
    return annotation


def _take_keypoints(dataset: Dataset, categories: list[dict], path: Path) -> None:
    """Sets keypoint names and skeleton of each category, which must be the same in all files."""
    first = _first_number(categories)
    if first == 0:
        dataset.warn(path, 'its skeletons count keypoints from 0, where COCO counts from 1: read so')
    for category in categories:
        names, skeleton = category.get('keypoints'), category.get('skeleton') or ()
        if not names:
            continue
        if not (isinstance(names, list) and all(isinstance(name, (str, int)) for name in names)):
            raise DatasetError(f'{path}: categories: "keypoints" is {short(names)}, expected a list of names')
        names = list(map(str, names))
        name = str(category.get('name'))
        if dataset.keypoints_by_class.get(name, (names,))[0] != names:
            raise DatasetError(f'{path}: category {name!r} has other keypoints than in the files before it')
        pairs = [pair for pair in skeleton if _is_link(pair, len(names), first)] if isinstance(skeleton, list) else []
        if len(pairs) < len(skeleton):
            other = next((pair for pair in skeleton if pair not in pairs), skeleton)
            what = f'skeleton of {name!r}: joins {short(other)} of {len(names)} keypoints'
            dataset.warn(path, f'{what}, expected two numbers from {first}')
        dataset.set_keypoints(name, names, [(a - first, b - first) for a, b in pairs])


def _first_number(categories: list[dict]) -> int:
    """Returns the number of the first keypoint in a file's skeletons: 0 if that is joined and the last by 1 is not."""
    lists = [(category.get('skeleton'), category.get('keypoints')) for category in categories]
    joined = [
        (end, len(names))
        for skeleton, names in lists
        if isinstance(skeleton, list) and isinstance(names, list)
        for pair in skeleton
        if isinstance(pair, list)
        for end in pair
        if isinstance(end, int)
    ]
    return 0 if any(end == 0 for end, _ in joined) and all(end < count for end, count in joined) else 1


def _is_link(pair: Any, count: int, first: int) -> bool:
    is_pair = isinstance(pair, list) and len(pair) == 2
    return is_pair and all(isinstance(end, int) and first <= end < first + count for end in pair)


# --- panoptic ---


def _panoptic(dataset: Dataset, path: Path, files: Files) -> None:
    """Reads instances as masks, and all segments as a segmentation map with the file's category ids."""
    content, split = read_coco(path), split_of(path.relative_to(files.root))
    defects = _defects(content, _PANOPTIC)
    _say_defects(dataset, path, content, defects, split)
    categories = {i: category for i, category in enumerate(content['categories']) if i not in defects['categories']}
    check_once({'categories': list(categories.values())}, path)
    names = {}
    for i, category in categories.items():
        if not category['name'].strip():
            dataset.warn(f'{path}: categories[{i}]', 'has a blank name', is_left_out=True)
            continue
        names[category['id']] = category
        dataset.seg_map_classes[category['id']] = category['name']
        if category.get('isthing', 1):
            dataset.add_class(category['name'])
    dataset.ignore_index.add(0)
    entries = {image['id']: image for i, image in enumerate(content['images']) if i not in defects['images']}
    annotations = [
        (i, annotation) for i, annotation in enumerate(content['annotations']) if i not in defects['annotations']
    ]
    files_of = [_image_of(annotation, entries) for _, annotation in annotations]
    locations = files.images(files_of, *_near(path, split), split=split)
    for (i, annotation), name in zip(annotations, files_of):
        location, segments = locations.get(name), path.with_suffix('') / annotation['file_name']
        if location is None or not segments.is_file():
            dataset.missing.append(f'{path}: {name if location is None else annotation["file_name"]}')
            continue
        where = f'{path}: annotations[{i}] of {annotation["file_name"]}'
        with dataset.reading(where, os.path.realpath(location), split):
            written = _written(entries.get(annotation.get('image_id'), {}))
            _panoptic_image(dataset, annotation, names, dataset.image(location, split), segments, written, where)


def _image_of(annotation: dict, entries: dict[int, dict]) -> str:
    number = annotation.get('image_id')
    entry = entries.get(number) if isinstance(number, int) else None
    return entry['file_name'] if entry else f'{Path(annotation["file_name"]).stem}.jpg'


def _panoptic_image(
    dataset: Dataset,
    annotation: dict,
    names: dict[int, dict],
    image: AnnotatedImage,
    path: Path,
    written: tuple[int, int] | None,
    where: str,
) -> None:
    """Adds the segments of one image, whose panoptic map is ``path``.

    Raises:
        InputError: The map has another size or is not in COCO's format.
    """
    segments = {}
    for k, segment in enumerate(annotation['segments_info']):
        if not (isinstance(segment, dict) and all(isinstance(segment.get(key), int) for key in ('id', 'category_id'))):
            raise DatasetError(f'segments_info[{k}] is {short(segment)}, expected "id" and "category_id"')
        if segment['category_id'] not in names:
            dataset.leave_out(where, f'segments_info[{k}]: category {segment["category_id"]} has no name', image.path)
        elif not 0 <= segment['id'] < 1 << 24:
            dataset.leave_out(where, f'segments_info[{k}] has the id {short(segment["id"])}, no colour', image.path)
        elif segment['id'] in segments:
            dataset.leave_out(where, f'segments_info[{k}] has the id {short(segment["id"])} of another', image.path)
        else:
            segments[segment['id']] = segment
    if written is not None and written != image.size:
        (width, height), (own_width, own_height) = written, image.size
        raise DatasetError(f'"width" and "height" are {width} x {height}, its image has {own_width} x {own_height}')
    ids = read_class_ids(path, {segment: segment for segment in segments}, image.size)
    annotations = []
    for own_id, segment in segments.items():
        category = names[segment['category_id']]
        if category.get('isthing', 1):
            location = f'{where}: segment {own_id}'
            segmentation = as_segmentation(ids == own_id, image.size, dataset, location, image)
            if segmentation is not None:
                annotations.append(
                    Annotation(
                        category['name'], None, segmentation, crowd=bool(segment.get('iscrowd')), location=location
                    )
                )
    image.seg_map, image.annotations = path, [*(image.annotations or ()), *annotations]
    image.segments = {own_id: segment['category_id'] for own_id, segment in segments.items()}


_READERS = {'COCO': _coco, 'COCO panoptic': _panoptic, 'COCO results': _read_results, 'MPII': read_mpii}
