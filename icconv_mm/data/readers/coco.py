"""COCO: boxes, polygons, run lengths, keypoints with their own names; panoptic; and MPII's lists of joints."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from icconv_mm.data.checks import DatasetError, check_coco_file
from icconv_mm.data.found import Files, Found, Picture, Thing, held_out_first, split_of
from icconv_mm.data.outlines import box_of_keypoints, class_map, fit_to_picture, outline_of

_MPII = (
    *('right_ankle', 'right_knee', 'right_hip', 'left_hip', 'left_knee', 'left_ankle', 'pelvis', 'thorax'),
    *('upper_neck', 'head_top', 'right_wrist', 'right_elbow', 'right_shoulder', 'left_shoulder', 'left_elbow'),
    'left_wrist',
)


def sources(files: Files) -> Iterator[tuple]:
    """COCO's files by their content; several of one set (``..._train.json``, ``..._val.json``) are one source."""
    groups: dict[tuple, list[Path]] = {}
    for path in files.labels('.json'):
        kind = kind_of_json(path) or ('COCO' if path == files.only else '')
        if kind in ('COCO', 'COCO panoptic', 'MPII'):
            plain = path.stem.lower()
            for word in ('training', 'train', 'validation', 'valid', 'val', 'testing', 'test'):
                plain = plain.replace(word, '*')
            folder = path.parent.parent if split_of(path.parent.name) else path.parent  # Roboflow: train/..., valid/...
            groups.setdefault((kind, folder, plain), []).append(path)
    for (kind, folder, _), paths in groups.items():
        place = paths[0] if len(paths) == 1 else folder
        read = {'COCO': _coco, 'COCO panoptic': _panoptic, 'MPII': _mpii}[kind]
        yield kind, place, partial(_all, read=read, kind=kind, paths=paths, files=files, place=place)


def kind_of_json(path: Path) -> str:
    """What a JSON file is: ``'COCO'``, ``'COCO panoptic'``, ``'MPII'``, ``'LabelMe'``, or '' for anything else."""
    with open(path, 'rb') as file:
        start = file.read(4096)
    if start.lstrip()[:1] == b'[':
        return 'MPII' if b'"joints"' in start or b'"joints_vis"' in start else ''
    if b'"shapes"' in start or b'"imagePath"' in start:
        return 'LabelMe'
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return 'COCO' if b'"images"' in start or b'"annotations"' in start else ''  # refused with a sentence when read
    if not isinstance(content, dict) or not {'images', 'annotations', 'categories'} <= content.keys():
        return ''  # captions, results
    annotations = content['annotations']
    first = annotations[0] if isinstance(annotations, list) and annotations else {}
    return 'COCO panoptic' if isinstance(first, dict) and 'segments_info' in first else 'COCO'


def _all(read: Any, kind: str, paths: list[Path], files: Files, place: Path) -> Found:
    found = Found(kind, place)
    for path in paths:
        earlier, found.pictures = found.pictures, {}
        read(found, path, files)
        _unite(found, earlier, path, files)
    return found


def _unite(found: Found, earlier: dict[Path, Picture], path: Path, files: Files) -> None:
    """Add the pictures of earlier files; one that is in a file as well has the labels of one split alone.

    That is the split of its folder, if it has one: a file may lead to it because the picture that was meant is missing.
    """
    shared = sorted(earlier.keys() & found.pictures.keys())
    if shared:
        what = f'{len(shared)} of its pictures are in another file of this set as well'
        found.wrong(path, f'{what}, the first: {shared[0]}: each has the labels of one of them')
    own, found.pictures = found.pictures, earlier | found.pictures
    for place in shared:
        splits = {each.split: each for each in (own[place], earlier[place])}
        of_folder = files.split_of(place)
        found.pictures[place] = splits[of_folder if of_folder in splits else held_out_first(splits)]


def _coco(found: Found, path: Path, files: Files) -> None:
    """Read one file of COCO's format.

    Raises:
        DatasetError: It is not of that format.
    """
    content = check_coco_file(path)
    split = split_of(path.relative_to(files.root))
    names = {category['id']: found.add_class(category['name']) for category in content['categories']}
    _take_keypoints(found, content['categories'], path)
    images = {}
    near = (path.parent, path.parent.parent, *(path.parent / each for each in ('images', split) if each))
    places = files.images((entry['file_name'] for entry in content['images']), *near, split=split)
    for entry in content['images']:
        if (place := places.get(entry['file_name'])) is None:
            found.missing.append(f'{path}: {entry["file_name"]}')
            continue
        images[entry['id']] = made = found.picture(place, split)
        made.things = made.things or []
    for i, entry in enumerate(content['annotations']):
        if (picture := images.get(entry['image_id'])) is None:
            continue
        where = f'{path}: annotations[{i}] of {picture.path.name}'
        thing = Thing(names[entry['category_id']], entry.get('bbox'), place=where)
        thing.crowd = bool(entry.get('iscrowd') or entry.get('ignore'))
        thing.area = entry.get('area')
        if thing.area is not None and not isinstance(thing.area, (int, float)):
            found.wrong(where, f'"area" is {thing.area!r:.40}, no number: that of the mask or the box is taken')
            thing.area = None
        thing.outline = outline_of(entry.get('segmentation'), _written_size(picture, content, entry), found, where)
        keypoints = entry.get('keypoints')
        if keypoints and any(keypoints[2::3]):
            if found.keypoints and len(keypoints) != 3 * len(found.keypoints):
                found.wrong(where, f'{len(keypoints)} values in "keypoints", expected 3 x {len(found.keypoints)}')
            else:
                thing.keypoints = keypoints
                found.keypoints = found.keypoints or [f'point_{k + 1}' for k in range(len(keypoints) // 3)]
                thing.box = thing.box or box_of_keypoints(keypoints, picture.size)
        if thing.box is None and thing.outline is None:
            found.wrong(where, 'has neither a box, nor a mask, nor a labelled keypoint: left out')
            continue
        picture.things.append(thing)
    entries = {images[entry['id']].path: entry for entry in content['images'] if entry['id'] in images}
    for entry in entries.values():
        fit_to_picture(found, images[entry['id']], (entry.get('width'), entry.get('height')), path)


def _written_size(picture: Picture, content: dict, entry: dict) -> tuple[int, int]:
    """The size of an image as its file of annotations has it, else the loaded one."""
    if '_sizes' not in content:
        content['_sizes'] = {i['id']: (i.get('width'), i.get('height')) for i in content['images']}
    written = content['_sizes'][entry['image_id']]
    return written if all(isinstance(side, int) for side in written) else picture.size


def _take_keypoints(found: Found, categories: list[dict], path: Path) -> None:
    """The names of keypoints that a file has for its categories: the same for all of them."""
    for category in categories:
        names = category.get('keypoints')
        if not names:
            continue
        if found.keypoints and found.keypoints != list(names):
            raise DatasetError(
                f'{path}: category {category["name"]!r} has other keypoints than those before it: one network learns '
                'one list of keypoints; split the file by category'
            )
        found.keypoints = list(map(str, names))
        pairs = [(a - 1, b - 1) for a, b in category.get('skeleton') or ()]
        beyond = [pair for pair in pairs if not all(0 <= k < len(names) for k in pair)]
        if beyond:
            a, b = beyond[0]
            found.wrong(path, f'skeleton of {category["name"]!r}: joins {a + 1} and {b + 1} of {len(names)} keypoints')
        found.skeleton = [pair for pair in pairs if pair not in beyond]


# --- panoptic ---


def _panoptic(found: Found, path: Path, files: Files, images: Path | None = None, maps: Path | None = None) -> None:
    """Things as masks of instances, and all segments in a map of classes, numbered as the file's categories."""
    content = json.loads(path.read_bytes())
    names = {category['id']: category for category in content['categories']}
    found.map_names |= {i: category['name'] for i, category in names.items()}
    found.void.add(0)
    for category in content['categories']:
        if category.get('isthing', 1):
            found.add_class(category['name'])
    entries = {image['id']: image['file_name'] for image in content['images']}
    files_of = [entries.get(a['image_id'], f'{Path(a["file_name"]).stem}.jpg') for a in content['annotations']]
    split = split_of(path.relative_to(files.root))
    places = files.images(files_of, *filter(None, (images,)), path.parent, split=split)
    for annotation, name in zip(content['annotations'], files_of):
        place = places.get(name)
        segments = next(
            (f for f in (Path(d, annotation['file_name']) for d in (maps, path.with_suffix('')) if d) if f.is_file()),
            None,
        )
        if place is None or segments is None:
            found.missing.append(f'{path}: {name if place is None else annotation["file_name"]}')
            continue
        picture = found.picture(place, split)
        picture.label_map, picture.things = segments, picture.things or []
        picture.segments = {segment['id']: segment['category_id'] for segment in annotation['segments_info']}
        ids = class_map(segments, {segment['id']: segment['id'] for segment in annotation['segments_info']})
        for segment in annotation['segments_info']:
            category = names[segment['category_id']]
            if category.get('isthing', 1):
                mask = ids == segment['id']
                where = f'{path}: segment {segment["id"]} of {annotation["file_name"]}'
                thing = Thing(category['name'], None, outline_of(mask, picture.size, found, where), place=where)
                thing.crowd = bool(segment.get('iscrowd'))
                if thing.outline is not None:
                    picture.things.append(thing)


def _mpii(found: Found, path: Path, files: Files) -> None:
    """MPII's list of people: joints, and a square of 200 ``scale`` pixels around ``center``."""
    found.keypoints, name = list(_MPII), found.add_class('person')
    people = json.loads(path.read_bytes())
    names = (entry['image'] for entry in people if isinstance(entry.get('image'), str))
    places = files.images(names, path.parent, path.parent / 'images')
    for i, entry in enumerate(people):
        where = f'{path}: [{i}]'
        joints, seen = entry.get('joints'), entry.get('joints_vis')
        if not (isinstance(joints, list) and isinstance(seen, list) and len(joints) == len(seen) == len(_MPII)):
            found.wrong(where, f'expected joints and joints_vis of {len(_MPII)} keypoints')
            continue
        if (place := places.get(entry['image'])) is None:
            found.missing.append(f'{where}: {entry["image"]}')
            continue
        picture = found.picture(place, split_of(path.name))
        keypoints = [value for (x, y), v in zip(joints, seen) for value in ((x, y, 2) if v else (0, 0, 0))]
        picture.things = picture.things or []
        if (box := box_of_keypoints(keypoints, picture.size)) is None:
            found.wrong(where, 'no joint is visible: left out')
        else:
            picture.things.append(Thing(name, box, keypoints=keypoints, place=where))
