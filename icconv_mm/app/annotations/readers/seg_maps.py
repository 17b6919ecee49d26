"""Reads segmentation maps beside images, in folders of any name; and folders of one mask PNG per instance."""

import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from icconv_mm.app.annotations.dataset import Annotation, Dataset
from icconv_mm.app.annotations.images_on_disk import Files, followed, is_text, located, split_of
from icconv_mm.app.annotations.map_conversion import is_binary, read_class_ids
from icconv_mm.app.annotations.readers.lists import listed, splits_of
from icconv_mm.app.annotations.readers.seg_map_names import Table, has_colors, table_of, tables_in, take_names
from icconv_mm.app.annotations.readers.yolo import yaml_of
from icconv_mm.datasets import limits
from icconv_mm.datasets.image_files import opened
from icconv_mm.datasets.reading import DatasetError, fault_of, read_bytes
from icconv_mm.datasets.seg_maps import LARGEST
from icconv_mm.errors import short
from icconv_mm_runtime.coco import encode_rle
from icconv_mm_runtime.decoding import decode_mask
from icconv_mm_runtime.images import IMAGE_SUFFIXES

_OF_LABELS = re.compile(r'annot|label|(?<![a-z])labs?(?![a-z])|mask|seg|semantic|gt|truth|target|class', re.IGNORECASE)
_OF_IMAGES = re.compile(r'im(age|g)|photo|picture|rgb|original', re.IGNORECASE)
_BESIDE_CLASSES = re.compile(r'instance|object|visuali|colou?r|labelids', re.IGNORECASE)  # by-products of tools
_ENDINGS = re.compile(  # of the names of maps
    r'_(masks?|labels?|annotations?|segmentations?|seg|gt|(ground_?)?truth|L|((gtFine|gtCoarse)_)?label(Train)?Ids)$'
)
_IMAGE_ENDINGS = re.compile(r'_(images?|img|original|photo|rgb|sat|leftImg8bit)$')
_COLORS = 64  # most colours of a map without a table, as opposed to other images
_LOOKED_AT = 3  # maps of a folder that are opened to tell maps from other images


def seg_map_sources(files: Files) -> Iterator[tuple]:
    """Yields folders of maps whose images have the same names elsewhere, and folders ``masks`` beside ``images``."""
    for path in files.labels('.yaml', '.yml'):
        content = yaml_of(path, files)
        if isinstance(content.get('classes'), dict) and isinstance(content.get('train'), dict):
            yield 'segmentation maps', path, partial(_listed_in_yaml, path, content)
            return
    if files.only is not None:
        return
    masks = [folder for folder in files.by_folder if folder.name == 'masks']
    instances = [folder for folder in masks if _is_one_each(folder, files)]
    one_each = set(instances)
    if instances:
        others = [mask for mask in masks if mask not in one_each and mask.parent / 'images' in files.by_folder]
        yield 'a mask per instance', files.root, partial(_instances, instances, others, files)
    tables = tables_in(files)
    folders = [
        folder
        for folder in files.by_folder
        if folder not in one_each and _OF_LABELS.search(str(folder.relative_to(files.root)))
    ]
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for path in files.ending(*IMAGE_SUFFIXES) if folders else ():
        for stem in {path.stem, _IMAGE_ENDINGS.sub('', path.stem)}:
            by_stem[stem].append(path)
    sets: dict[Path | None, dict[Path, list[_Map]]] = {}
    for folder in folders:
        table = table_of(folder, tables)
        same = next(
            (
                pairs_of_folder
                for pairs_of_folder in sets
                if pairs_of_folder and table and tables[pairs_of_folder] == tables[table]
            ),
            table,
        )
        for image, seg_map in _pairs_of(folder, by_stem, files, has_colors(tables.get(table, {}))):
            sets.setdefault(same, {}).setdefault(image, []).append(seg_map)
    for table, pairs in sets.items():
        if len(pairs) > len(instances):
            location = table.parent if table and len(sets) > 1 else files.root
            yield 'segmentation maps', location, partial(_maps, pairs, tables.get(table, {}), location, files)


# --- a mask for each instance ---


def _is_one_each(folder: Path, files: Files) -> bool:
    """Returns whether the folder ``images`` beside ``masks`` contains exactly one image."""
    beside = files.by_folder.get(folder.parent / 'images', [])
    return len([name for name in beside if name.lower().endswith(IMAGE_SUFFIXES)]) == 1


def _instances(folders: list[Path], others: list[Path], files: Files) -> Dataset:
    dataset = Dataset('a mask per instance', files.root)
    dataset.missing += [f'{folder}: one image in {folder.parent / "images"}' for folder in others]
    class_name = dataset.add_class('object')
    pool = ThreadPoolExecutor()  # an image of cells has about a hundred masks
    for folder in folders:
        beside = folder.parent / 'images'
        name = next(n for n in files.by_folder[beside] if n.lower().endswith(IMAGE_SUFFIXES))
        image = dataset.image(beside / name, split_of(folder.relative_to(files.root)))
        image.annotations = []
        paths = [folder / path for path in files.by_folder[folder] if path.lower().endswith('.png')]
        if min(image.size) == 0:  # the image has the warning
            continue
        covered = np.zeros(image.size[::-1], dtype=np.uint16)
        read = partial(_mask, size=image.size)
        for path, (mask, instances) in zip(paths, pool.map(read, paths)):
            if mask is None:
                dataset.leave_out(path, instances, image.path, image.split)
            else:
                image.annotations.append(Annotation(class_name, segmentation=instances, location=str(path)))
                covered += mask
        if (shared := int((covered > 1).sum())) > 0:
            dataset.warn(folder, f'masks overlap, in {shared} pixels')
    pool.shutdown()
    return dataset


def _mask(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, dict] | tuple[None, str]:
    """Returns a mask [H, W] and its RLE; None and the reason if it is empty, damaged, or of another size."""
    try:
        content = read_bytes(path, limits.IMAGE_BYTES)
        is_png = content[12:16] == b'IHDR' and len(content) > 24
        size_of_file = struct.unpack('>II', content[16:24]) if is_png else size
        if size_of_file != size:  # checked before the pixels are allocated
            return None, f'is {size_of_file[0]} x {size_of_file[1]}, its image {size[0]} x {size[1]}'
        # Pillow takes half as long again, and datasets have tens of thousands of masks
        mask = decode_mask(content) if is_png else None
        mask = read_class_ids(path, size=size) if mask is None else mask  # for other formats, or for the error message
    except Exception as error:
        return None, fault_of(error)
    mask = (mask[..., :3].max(-1) if mask.ndim == 3 else mask) != 0
    return (mask, encode_rle(mask)) if mask.any() else (None, 'is empty')


# --- a class for each pixel ---


class _Map(NamedTuple):
    """A segmentation map of an image, and a second image that it fits equally, or None."""

    path: Path
    other: Path | None


def _pairs_of(
    folder: Path, by_stem: dict[str, list[Path]], files: Files, is_colored: bool
) -> Iterator[tuple[Path, _Map]]:
    """Yields the images of the maps in a folder: images of the same name in the nearest other folder."""
    maps = [name for name in files.by_folder[folder] if name.lower().endswith(IMAGE_SUFFIXES)]
    allowed = {'labels', *(['colours', 'other'] if is_colored else [])}
    distance = cache(partial(_distance, maps=folder, root=files.root))
    is_image_folder = cache(lambda other: _is_of_labels(folder, other) and not _is_rather_of_labels(other, folder))
    looked_at = 0
    for name in maps:
        stem = Path(name).stem
        bare = {stem, _ENDINGS.sub('', stem)}
        if looked_at < _LOOKED_AT and any(
            path.parent != folder for candidate in bare for path in by_stem.get(candidate, ())
        ):
            if kind_of_map(folder / name) not in allowed:  # first: folders of classes can share all their names
                return
            looked_at += 1
        others = {path for candidate in bare for path in by_stem.get(candidate, ()) if path.parent != folder}
        fitting = [path for path in sorted(others) if is_image_folder(path.parent)]
        if not fitting:
            continue
        least = min(distance(path.parent) for path in fitting)
        near = {path.parent.resolve(): path for path in reversed(fitting) if distance(path.parent) == least}
        first, *more = sorted(near.values())
        yield first, _Map(folder / name, more[0] if more else None)


def kind_of_map(path: Path) -> str:
    """Returns what an image file may hold: ``'labels'``, ``'colours'`` of classes, a ``'JPEG'``, or ``'other'`` pixels.

    A JPEG of a black and white mask holds labels.
    """
    try:
        with opened(path) as image:
            if image.format == 'JPEG':
                return 'labels' if is_binary(np.asarray(image)) else 'JPEG'
            if image.mode not in ('RGB', 'RGBA'):
                values = np.asarray(image)
                is_few = len(np.unique(values)) <= _COLORS or is_binary(values)  # else a grey image
                return 'labels' if image.mode in ('L', 'P', '1', 'I', 'I;16') and is_few else 'other'
            colors = image.convert('RGB').getcolors(_COLORS) or ()
    except Exception:  # any decoder error: the reader of the map reports it
        return 'other'
    is_grey = all(red == green == blue for _, (red, green, blue) in colors)
    return 'other' if not colors else 'labels' if is_grey else 'colours'


def _is_of_labels(one: Path, other: Path) -> bool:
    """Returns whether the first folder is named after labels, by the parts that the second does not have."""
    return any(map(_OF_LABELS.search, _unshared(one, other)[0]))


def _is_rather_of_labels(one: Path, other: Path) -> bool:
    """Returns whether only the first folder is named after labels, by the parts that differ."""
    return _is_of_labels(one, other) and not _is_of_labels(other, one)


def _unshared(one: Path, other: Path) -> tuple[set[str], set[str]]:
    parts, others = set(one.parts), set(other.parts)
    return parts - others, others - parts


def _distance(images: Path, maps: Path, root: Path) -> tuple:
    """Returns the distance of a folder of images from a folder of maps, as a sort key.

    It compares, in this order, which of them is named after labels, how much of their paths they share, whether they
    belong to one split, and how similar their names are.
    """
    parts, others = _unshared(images, maps)
    splits = [split_of(folder.relative_to(root)) for folder in (images, maps)]
    return (
        not _is_rather_of_labels(maps, images),
        bool(_OF_LABELS.search(images.name)),
        len(parts | others),
        splits[0] != splits[1],
        not maps.name.startswith(images.name),
        not _OF_IMAGES.search(images.name),
    )


def _maps(pairs: dict[Path, list[_Map]], table: Table, location: Path, files: Files) -> Dataset:
    dataset = Dataset('segmentation maps', location)
    splits = splits_of(sorted(pairs), listed(files, 'Segmentation', elsewhere=True), files, dataset)
    maps = {candidate.path for pair in pairs.values() for candidate in pair}
    for path, split in splits.items():
        seg_maps = [pair for pair in pairs[path] if not _is_beside_classes(pair.path, path)] or pairs[path]
        folders = {candidate.path.parent for candidate in seg_maps}  # SegmentationClassAug contains SegmentationClass
        seg_maps = [
            candidate
            for candidate in seg_maps
            if candidate.path.parent.with_name(f'{candidate.path.parent.name}Aug') not in folders
        ]
        image = dataset.image(path, split)
        image.seg_map = seg_maps[0].path
        if len(seg_maps) > 1:
            image.problem = f'has several segmentation maps, {seg_maps[0].path} and {seg_maps[1].path}'
        elif seg_maps[0].other is not None:
            image.problem = f'has the segmentation map {seg_maps[0].path}, which fits {seg_maps[0].other} as well'
        elif path in maps:
            image.problem = f'is taken for the segmentation map of an image, and has one itself, {seg_maps[0].path}'
    take_names(dataset, table, [image.seg_map.name for image in dataset.images.values()])
    labelled = {path.parent for path in pairs}
    for path in files.ending(*IMAGE_SUFFIXES):
        if path.parent in labelled and path not in pairs and path not in maps:
            dataset.warn(path, 'has no segmentation map', is_left_out=True)
    return dataset


def _is_beside_classes(seg_map: Path, image: Path) -> bool:
    """Returns whether a map's name marks it as a by-product: instance numbers or a visualisation."""
    parts, _ = _unshared(seg_map.parent, image.parent)
    return any(map(_BESIDE_CLASSES.search, (*parts, seg_map.stem.removeprefix(image.stem))))


def _files_in(folder: Path) -> list[Path]:
    return sorted(path for path in followed(folder).iterdir() if is_text(path.name) and path.is_file())


def _listed_in_yaml(path: Path, content: dict) -> Dataset:
    """Reads a YAML file of ``classes``, with ``images`` and ``masks`` of each split."""
    dataset = Dataset('segmentation maps', path)
    for value, entry in content['classes'].items():
        name = entry.get('name') if isinstance(entry, dict) else entry
        if not isinstance(value, int) or not 0 <= value <= LARGEST:
            raise DatasetError(f'{path}: classes has {short(value, 40)}, expected values of segmentation maps')
        if isinstance(name, (str, int)) and str(name).strip():
            dataset.seg_map_classes[value] = str(name)
        else:
            dataset.warn(path, f'classes[{value}] is {short(entry, 40)}, no name', is_left_out=True)
    ignored = content.get('ignore_classes') or []
    if not (isinstance(ignored, list) and all(isinstance(value, int) for value in ignored)):
        raise DatasetError(f'{path}: ignore_classes is {short(ignored, 40)}, expected a list of values')
    dataset.ignore_index |= set(ignored)
    for split in ('train', 'val', 'test'):
        given = content.get(split)
        if not isinstance(given, dict):
            continue
        locations = (located(str(given.get(key) or ''), [path.parent]) for key in ('images', 'masks'))
        images, masks = (
            location if location is not None and followed(location).is_dir() else None for location in locations
        )
        if images is None or masks is None:
            dataset.missing.append(f'{path}: {split}: {given}')
            continue
        paths = {path.stem: path for path in _files_in(masks) if path.suffix.lower() == '.png'}
        for image in _files_in(images):
            if image.suffix.lower() in IMAGE_SUFFIXES and image.stem in paths:
                dataset.image(image, split).seg_map = paths[image.stem]
            elif image.suffix.lower() in IMAGE_SUFFIXES:
                dataset.warn(image, f'has no segmentation map in {masks}', is_left_out=True)
    return dataset
