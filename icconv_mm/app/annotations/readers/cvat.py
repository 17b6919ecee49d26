"""Reads CVAT: an XML file of all images, or of a video, whose tracks list the shapes of each frame."""

import html
import os
import re
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

import numpy as np

from icconv_mm.app.annotations.dataset import AnnotatedImage, Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, as_path, split_of, without_split
from icconv_mm.app.annotations.points import Point, keypoints_of_points
from icconv_mm.app.annotations.readers.voc import kind_of_xml
from icconv_mm.app.annotations.segmentations import (
    as_segmentation,
    box_of_keypoints,
    fit_to_image,
    mask_of,
    measure,
    oriented_box,
    rotate_points,
    written_size,
)
from icconv_mm.datasets.reading import DatasetError, as_integer, as_number, read_xml
from icconv_mm.errors import short
from icconv_mm_runtime.coco import encode_rle
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_SHAPES = ('box', 'polygon', 'ellipse', 'mask', 'skeleton')
_ELLIPSE = 64  # points of the polygon of an ellipse
_ORDER = ('val', 'test', 'train', '')  # of several files with one image, the first to be held out gives its annotations
_FRAME = re.compile(r'frame_(\d+)')  # CVAT's name of a video's frame


@dataclass
class _Shape:
    """A shape or a tag; ``group`` is '' for an object of one shape."""

    element: Element
    label: str
    group: str
    where: str


@dataclass
class _Entry:
    """An image, or a frame of a video, with its shapes; ``written`` is the text of width and height."""

    location: Path
    split: str
    where: str
    written: tuple[str | None, str | None]
    shapes: list[_Shape] = field(default_factory=list)


def cvat_sources(files: Files) -> Iterator[tuple]:
    """Yields XML files with the root ``annotations``; ``train.xml`` and ``val.xml`` are one source."""
    sets: dict[tuple[Path, str], list[Path]] = {}
    for path in files.labels('.xml'):
        if kind_of_xml(path, files) == 'annotations':
            is_of_split = path.parent != files.root and split_of(path.parent.name)
            folder = path.parent.parent if is_of_split else path.parent
            stem = '*' if path.stem.lower() == 'default' else without_split(path.stem)  # datumaro's without a split
            sets.setdefault((folder, stem), []).append(path)
    for (folder, _), paths in sets.items():
        location = paths[0] if len(paths) == 1 else folder
        yield 'CVAT', location, partial(_cvat, paths, files, location)


def _cvat(paths: Sequence[Path], files: Files, location: Path) -> Dataset:
    """Reads the images of all files; raises DatasetError if one is not XML."""
    dataset = Dataset('CVAT', location)
    splits = {path: split_of(path.relative_to(files.root)) for path in paths}
    roots = {path: read_xml(path) for path in sorted(paths, key=lambda path: _ORDER.index(splits[path]))}
    oriented = _read_labels(dataset, roots)
    counts = {'joined': 0, 'rotated': 0}
    for path, root in roots.items():
        if root.find('track') is not None:
            dataset.format = 'CVAT for video'
        is_shared = sum(other.parent == path.parent for other in paths) > 1
        frames = _frames(dataset, root, path, files, is_shared)
        for entry in [*_existing_images(dataset, root, path, files, splits[path]), *frames]:
            entry.split = entry.split or splits[path]
            with dataset.reading(entry.where, os.path.realpath(entry.location), entry.split):
                written = written_size(*entry.written, ('width', 'height'))
                image = dataset.image(entry.location, entry.split)
                if dataset.is_first(image, path):
                    image.annotations = []
                    size = image.size[::-1] if written == image.size[::-1] else image.size
                    _read_shapes(dataset, entry.shapes, image, size, oriented, counts)
                    fit_to_image(dataset, image, written, path)
    if counts['joined']:
        dataset.notes.append(f'{counts["joined"]} objects are made of several shapes with one label and one group_id')
    if counts['rotated']:
        which = f'{counts["rotated"]} boxes of {", ".join(sorted(oriented))}, of which some are rotated'
        dataset.notes.append(f'{which}, are polygons for masks, and the boxes around these for detection')
    return dataset


# --- labels ---


def _read_labels(dataset: Dataset, roots: Mapping[Path, Element]) -> set[str]:
    """Sets classes and the keypoints of each skeleton; returns the labels with rotated boxes.

    Keypoints have the order of the labels in the file; those that are only drawn come last.
    """
    points: dict[str, dict[str, None]] = {}
    drawings: dict[str, Element] = {}
    oriented = set()
    for path, root in roots.items():
        for node in root.iterfind('.//labels/label'):
            name, kind, parent = ((node.findtext(tag) or '').strip() for tag in ('name', 'type', 'parent'))
            if not name:
                dataset.warn(path, 'a label has a blank name', is_left_out=True)
            elif parent:
                points.setdefault(parent, {})[name] = None
            elif kind != 'tag':
                dataset.add_class(name)
                if (drawing := node.find('svg')) is not None:
                    drawings[name] = drawing
    drawn = defaultdict(set)
    for label, element in (label for root in roots.values() for label in _labelled(root)):
        if element.tag == 'skeleton':
            drawn[label] |= {point.get('label', '') for point in element.iter('points')}
        elif element.tag == 'box' and (element.get('rotation') or '0').strip('0.'):
            oriented.add(label)
    for label in dict.fromkeys([*points, *drawn]):
        named = points.get(label, {})
        names = [*named, *sorted(filter(None, drawn[label] - named.keys()), key=_by_number)]
        if names:
            dataset.set_keypoints(label, names, _edges(drawings.get(label), names))
    return oriented


def _labelled(root: Element) -> Iterator[tuple[str, Element]]:
    """Yields each shape with its label, which a track has for all of its shapes."""
    for parent in root.iter():
        if parent.tag in ('image', 'track'):
            for element in parent:
                yield (parent if parent.tag == 'track' else element).get('label', '').strip(), element


def _by_number(name: str) -> tuple[int, str]:
    return (len(name), name) if name.isdigit() else (0, name)


def _edges(drawing: Element | None, names: Sequence[str]) -> list[tuple[int, int]]:
    """Returns the pairs of keypoints that the lines of a skeleton's SVG join; its circles number the keypoints."""
    text = '' if drawing is None else html.unescape(tostring(drawing, encoding='unicode'))
    tags = re.findall(r'<(?:circle|line)\b[^>]*>', text)
    elements = [dict(re.findall(r'data-([\w-]+)="([^"]*)"', tag)) for tag in tags]
    numbers = {element.get('node-id'): element.get('label-name') for element in elements if 'node-id' in element}
    lines = [element for element in elements if 'node-from' in element]
    ends = [[numbers.get(line.get(end)) for end in ('node-from', 'node-to')] for line in lines]
    return [(names.index(a), names.index(b)) for a, b in ends if a in names and b in names]


# --- images and frames ---


def _existing_images(dataset: Dataset, root: Element, path: Path, files: Files, split: str) -> Iterator[_Entry]:
    """Yields the images of a file that exist. Those of a project may be in the folder of their subset."""
    elements = [
        (element, element.get('name', ''), element.get('subset') or '', f'{path}: image {element.get("name", "")}')
        for element in root.iter('image')
    ]
    near = (path.parent / 'images' / path.stem, path.parent, path.parent / 'images')
    names = [f'{subset}/{name}' if subset and name.strip() else name for _, name, subset, _ in elements]
    locations = files.images(names, *near, split=split)
    for (element, name, subset, where), full in zip(elements, names):
        location = locations.get(full)
        if location is None and as_path(name).suffix.lower() not in IMAGE_SUFFIXES:  # frames of a video have none
            folders = [folder / subfolder / as_path(name).parent for folder in near for subfolder in (subset, '')]
            location = files.beside(as_path(name).name, *folders)
        if location is None:
            dataset.missing.append(f'{path}: {name}')
            continue
        own_split = split_of(subset) or split_of(as_path(name).parent)
        entry = _Entry(location, own_split, where, (element.get('width'), element.get('height')))
        for i, child in enumerate(element):
            if child.tag != 'skeleton' and not _is_visible(child):  # datumaro's, of a video
                continue
            label, group = (child.get('label') or '').strip(), child.get('group_id') or ''
            entry.shapes.append(_Shape(child, label, group, f'{where}, {child.tag} {i + 1}'))
        yield entry


def _frames(dataset: Dataset, root: Element, path: Path, files: Files, is_shared: bool) -> Iterator[_Entry]:
    """Yields the frames of a video that are there as images: those of the tracks, and the others of the task.

    Files that share a folder of images have only the frames of their tracks.
    """
    tracks: dict[str, list[Element]] = defaultdict(list)
    for track in root.iter('track'):
        tracks[(track.get('subset') or '').strip()].append(track)
    sizes = {(node.findtext('width'), node.findtext('height')) for node in root.iterfind('meta//original_size')}
    written = sizes.pop() if len(sizes) == 1 else (None, None)
    for subset, tracks_of_subset in tracks.items():
        if (count := len({track.get('task_id') for track in tracks_of_subset})) > 1:
            what = 'their frames have the same numbers: export each task by itself, or as CVAT for images'
            raise DatasetError(f'{path}: has tracks of {count} tasks in one subset, and {what}')
        images, split = _images_of_frames(path, files, subset, len(tracks) > 1), split_of(subset)
        ranges = _ranges(root, subset)
        in_task = sorted(frame for frame in images if not ranges or any(frame in span for span in ranges))
        is_own = not is_shared or next(iter(images.values())).parent.name == path.stem
        shapes: dict[int, list[_Shape]] = {frame: [] for frame in in_task if is_own}
        unknown: set[int] = set()
        for i, track in enumerate(tracks_of_subset):
            where = f'{path}: track {track.get("id") or i}'
            between = _read_track(dataset, track, where, split, in_task, shapes)
            if between:
                what = f'{len(between)} images between its keyframes have no shape of it, the first is {between[0]}'
                dataset.leave_out(where, what, images[between[0]], split)
                unknown.update(between)
        for frame in unknown:
            dataset.lost.setdefault(os.path.realpath(images[frame]), split)
        for frame in sorted(shapes.keys() - unknown):
            if frame in images:
                yield _Entry(images[frame], split, f'{path}: frame {frame}', written, shapes[frame])
            else:
                dataset.missing.append(f'{path}: frame_{frame:06d}')


def _read_track(
    dataset: Dataset, track: Element, where: str, split: str, frames: Sequence[int], shapes: dict[int, list[_Shape]]
) -> list[int]:
    """Adds the visible shapes of a track to those of each frame; returns the frames where the object is unknown.

    CVAT writes a shape for each frame in which the object is visible. Where other programs write keyframes alone, an
    object that is visible at a keyframe is unknown until the next one.
    """
    label, group = (track.get('label') or '').strip(), track.get('group_id') or ''
    visible: dict[int, bool] = {}
    for element in track:
        with dataset.reading(where, split=split):
            frame = as_integer(element.get('frame'), 'frame')
            visible[frame] = visible.get(frame, False) or _is_visible(element)
            if _is_visible(element):
                shapes.setdefault(frame, []).append(_Shape(element, label, group, f'{where}, frame {frame}'))
    numbers = sorted(visible)
    inside = frames[bisect(frames, numbers[0]) : bisect(frames, numbers[-1])] if numbers else ()
    return [child for child in inside if child not in visible and visible[numbers[bisect(numbers, child) - 1]]]


def _is_visible(element: Element) -> bool:
    """Returns whether a shape of a track is in its frame; a skeleton is if one of its points is."""
    each_of = element.iter('points') if element.tag == 'skeleton' else [element]
    return any(child.get('outside') != '1' for child in each_of)


def _images_of_frames(path: Path, files: Files, subset: str, is_one_of_many: bool) -> dict[int, Path]:
    """Returns the image of each frame: near an XML file, or in the only other folder that has frames.

    Each of several subsets has a folder of its name.

    Raises:
        DatasetError: No folder has images of frames, or several have.
    """
    folder = path.parent / 'images'
    there = {path: images for path in files.by_folder if (images := _frames_in(path, files))}
    for directory in (
        [folder / subset] if is_one_of_many else [folder / path.stem, folder / subset, folder, path.parent]
    ):
        if directory in there:
            return there[directory]
    if is_one_of_many:
        raise DatasetError(
            f'{path}: is of a video, and the folder images/{subset} has no image called frame_000000.png'
        )
    if len(there) == 1:
        return next(iter(there.values()))
    if there:
        first, second, *_ = there
        raise DatasetError(f'{path}: is of a video, and {len(there)} folders have frames: {first}, {second}')
    what = 'no image is called frame_000000.png, ..., as CVAT names them'
    raise DatasetError(f'{path}: is of a video, and {what}: export it with its images, or as CVAT for images')


def _frames_in(folder: Path, files: Files) -> dict[int, Path]:
    """Returns the images of a folder that are called like frames, by their numbers."""
    names = (name for name in files.by_folder[folder] if name.lower().endswith(IMAGE_SUFFIXES))
    return {int(match[1]): folder / name for name in names if (match := _FRAME.fullmatch(Path(name).stem))}


def _ranges(root: Element, subset: str) -> list[range]:
    """Returns the frames of each task of a subset, as far as the file says."""
    ranges = []
    for task in root.iterfind('meta//task'):
        start, stop = ((task.findtext(tag) or '').strip() for tag in ('start_frame', 'stop_frame'))
        step = re.search(r'step=(\d+)', task.findtext('frame_filter') or '')
        is_own = not subset or (task.findtext('subset') or 'default').strip() == subset
        if is_own and start.isdecimal() and stop.isdecimal():
            ranges.append(range(int(start), int(stop) + 1, max(1, int(step[1])) if step else 1))
    return ranges


# --- shapes ---


def _read_shapes(
    dataset: Dataset,
    shapes: Iterable[_Shape],
    image: AnnotatedImage,
    size: tuple[int, int],
    oriented: set[str],
    counts: dict[str, int],
) -> None:
    """Adds the objects and tags of an image; counts those joined of several shapes, and rotated boxes."""
    objects: dict[object, list[Annotation]] = {}
    for i, shape in enumerate(shapes):
        with dataset.reading(shape.where, image.path, image.split):
            if not shape.label:
                raise DatasetError('label is blank')
            if shape.element.tag == 'tag':
                image.labels.append(shape.label)
            elif shape.element.tag not in _SHAPES:
                what = f'{shape.element.tag} is no {", ".join(_SHAPES[:-1])} or {_SHAPES[-1]}'
                dataset.warn(shape.where, what, is_left_out=True)
            elif (annotation := _annotation(dataset, shape, image, size, shape.label in oriented)) is not None:
                dataset.add_class(shape.label)
                counts['rotated'] += shape.element.tag == 'box' and annotation.segmentation is not None
                key = i if shape.group in ('', '0') else (shape.label, shape.group)
                objects.setdefault(key, []).append(annotation)
    for parts in objects.values():
        joined = _joined_shapes(parts, size)
        counts['joined'] += len(joined) < len(parts)
        for annotation in joined:
            if annotation.box is None and annotation.segmentation is None:
                annotation.box = box_of_keypoints(annotation.keypoints, size)
            if annotation.box is None and annotation.segmentation is None:
                dataset.warn(annotation.location, 'all points are outside', is_left_out=True)
                continue
            if annotation.keypoints is not None and not any(annotation.keypoints[2::3]):
                annotation.keypoints = None
            image.annotations.append(annotation)


def _joined_shapes(parts: list[Annotation], size: tuple[int, int]) -> list[Annotation]:
    """Returns one object for the shapes of a group: all masks, the box around them, and the only skeleton.

    Shapes with several skeletons are a group of several objects, which stay apart.
    """
    skeletons = [part.keypoints for part in parts if part.keypoints is not None]
    if len(parts) == 1 or len(skeletons) > 1:
        return parts
    annotation = Annotation(parts[0].name, keypoints=skeletons[0] if skeletons else None, location=parts[0].location)
    masks = [part.segmentation for part in parts if part.segmentation is not None]
    if all(isinstance(mask, list) for mask in masks):
        annotation.segmentation = [polygon for mask in masks for polygon in mask] or None
    else:
        annotation.segmentation = encode_rle(np.maximum.reduce([mask_of(mask, size) for mask in masks]))
    if any(part.box is not None for part in parts):
        for part in parts:
            if part.segmentation is not None:
                measure(part, size)
        boxes = [part.box for part in parts if part.box is not None]
        corners = np.array([(x, y, x + w, y + h) for x, y, w, h in boxes])
        (left, top), (right, bottom) = corners[:, :2].min(0).tolist(), corners[:, 2:].max(0).tolist()
        annotation.box = [left, top, right - left, bottom - top]
    return [annotation]


def _annotation(
    dataset: Dataset, shape: _Shape, image: AnnotatedImage, size: tuple[int, int], is_oriented: bool
) -> Annotation | None:
    """Returns the annotation of a shape, without the box that its mask or keypoints give."""
    annotation, element, polygon = Annotation(shape.label, location=shape.where), shape.element, None
    if element.tag == 'box':
        x1, y1, x2, y2 = (as_number(element.get(key), key) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        annotation.box = [x1, y1, x2 - x1, y2 - y1]
        if is_oriented:
            center, degrees = ((x1 + x2) / 2, (y1 + y2) / 2), as_number(element.get('rotation') or 0, 'rotation')
            annotation.box, polygon = oriented_box(center, (x2 - x1, y2 - y1), degrees)
    elif element.tag == 'polygon':
        polygon = _polygon(element.get('points', ''))
    elif element.tag == 'ellipse':
        x, y, *radii = (as_number(element.get(key), key) for key in ('cx', 'cy', 'rx', 'ry'))
        turns = np.linspace(0, 2 * np.pi, _ELLIPSE, endpoint=False)
        points = np.stack([np.cos(turns), np.sin(turns)], 1) * radii
        points = rotate_points(points, as_number(element.get('rotation') or 0, 'rotation')) + (x, y)
        polygon = points.ravel().tolist()
    elif element.tag == 'mask':
        annotation.segmentation = encode_rle(_mask(element, size))
    else:
        names = dataset.keypoints_of(shape.label)[0]
        annotation.keypoints = keypoints_of_points(dataset, _points(element), names, shape.where)
    if polygon is not None:
        annotation.segmentation = as_segmentation([polygon], size, dataset, shape.where, image)
        if annotation.segmentation is None and annotation.box is None:
            return None
    return annotation


def _polygon(text: str) -> list[float]:
    try:
        polygon = list(map(float, text.replace(';', ',').split(',')))
    except ValueError:
        raise DatasetError(f'points is {short(text, 40)}, expected x,y;x,y;...') from None
    if text.count(',') != text.count(';') + 1:
        raise DatasetError(f'points is {short(text, 40)}, expected x,y;x,y;...')
    return polygon


def _mask(element: Element, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask [H, W] of an image, clipped to its border."""
    left, top, width, height = (as_integer(element.get(key), key) for key in ('left', 'top', 'width', 'height'))
    if not (0 < width <= 2 * size[0] and 0 < height <= 2 * size[1]):
        raise DatasetError(f'width and height are {width} x {height}, those of its image {size[0]} x {size[1]}')
    try:
        runs = list(map(int, (rle := element.get('rle', '')).split(',')))
    except ValueError:
        raise DatasetError(f'rle is {short(rle, 40)}, expected numbers of pixels') from None
    if min(runs) < 0 or sum(runs) != width * height:
        raise DatasetError(f'rle has {short(sum(runs), 20)} pixels, the mask {width} x {height}')
    values = np.repeat(np.arange(len(runs), dtype=np.uint8) % 2, runs).reshape(height, width)
    x, y = max(left, 0), max(top, 0)
    values = values[y - top : max(size[1] - top, 0), x - left : max(size[0] - left, 0)]
    mask = np.zeros(size[::-1], dtype=np.uint8)
    mask[y : y + values.shape[0], x : x + values.shape[1]] = values
    if not mask.any():
        raise DatasetError('the mask is empty, or outside the image')
    return mask


def _points(element: Element) -> Iterator[Point]:
    """Yields the points of a skeleton that are inside the frame."""
    for node in element.iter('points'):
        if not (label := node.get('label', '')):
            raise DatasetError('a point of the skeleton has no label')
        if node.get('outside') != '1':
            yield Point(label, *_point(node.get('points')), 1 if node.get('occluded') == '1' else 2)


def _point(text: str | None) -> tuple[float, float]:
    x, comma, y = (text or '').partition(',')
    if not comma:
        raise DatasetError(f'points has {short(text, 40)}, expected x,y')
    return as_number(x, 'points'), as_number(y, 'points')
