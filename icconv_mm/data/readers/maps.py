"""Label PNGs beside pictures, whatever their folders are called; and folders with one mask PNG per instance."""

import csv
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from icconv_mm.data.found import IMAGE_SUFFIXES, Files, Found, Thing, followed, located, split_of
from icconv_mm.data.outlines import class_map
from icconv_mm.data.readers.yolo import read_yaml
from icconv_mm_runtime.results import run_lengths

_OF_LABELS = re.compile(r'annot|label|mask|seg|gt|truth|target|class', re.IGNORECASE)
_ENDINGS = (
    '',
    '_mask',
    '_label',
    '_labels',
    '_gt',
    '_seg',
    '_L',
    '_labelTrainIds',
    '_labelIds',
    '_gtFine_labelTrainIds',
)
_NAMES = ('classes.txt', 'class_names.txt', 'names.txt', 'labels.txt', 'labelmap.txt', 'label_colors.txt')
_TABLES = ('class_dict.csv', 'classes.csv', 'labels.csv')
_LISTS = re.compile(r'(train|val|test)\w*\.(txt|lst)')


def sources(files: Files) -> Iterator[tuple]:
    """Folders of maps that have a picture of the same name elsewhere, and folders ``masks`` beside ``images``."""
    for path in files.labels('.yaml', '.yml'):
        content = read_yaml(path)
        if isinstance(content.get('classes'), dict) and isinstance(content.get('train'), dict):
            yield 'label maps', path, partial(_listed_in_yaml, path, content)
            return
    if files.only is not None:
        return
    instances = [folder for folder in files.by_folder if folder.name == 'masks' and _is_one_each(folder, files)]
    if instances:
        yield 'a mask per instance', files.root, partial(_instances, instances, files)
    pairs = {}
    for folder, names in files.by_folder.items():
        if folder not in instances and _OF_LABELS.search(str(folder.relative_to(files.root))):
            pairs |= _pairs_of(folder, names, files)
    if pairs and len(pairs) > len(instances):
        yield 'label maps', files.root, partial(_maps, pairs, files)


# --- a mask for each instance ---


def _is_one_each(folder: Path, files: Files) -> bool:
    """Whether beside ``masks`` there is ``images`` with one picture."""
    beside = files.by_folder.get(folder.parent / 'images', [])
    return len([name for name in beside if name.lower().endswith(IMAGE_SUFFIXES)]) == 1


def _instances(folders: list[Path], files: Files) -> Found:
    found = Found('a mask per instance', files.root)
    name = found.add_class('object')
    pool = ThreadPoolExecutor()  # a picture of cells has a hundred masks
    for folder in folders:
        beside = folder.parent / 'images'
        image = next(n for n in files.by_folder[beside] if n.lower().endswith(IMAGE_SUFFIXES))
        picture = found.picture(beside / image, split_of(folder.relative_to(files.root)))
        picture.things = []
        covered = np.zeros(picture.size[::-1], dtype=np.uint16)
        paths = [folder / each for each in files.by_folder[folder] if each.lower().endswith('.png')]
        for path, (mask, outline) in zip(paths, pool.map(_mask, paths)):
            if mask.shape != covered.shape:
                sizes = f'{mask.shape[1]} x {mask.shape[0]}, its picture {picture.size[0]} x {picture.size[1]}'
                found.wrong(path, f'is {sizes}: left out')
            elif outline is None:
                found.wrong(path, 'is empty: left out')
            else:
                picture.things.append(Thing(name, outline=outline, place=str(path)))
                covered += mask
        if (shared := int((covered > 1).sum())) > 0:
            found.wrong(folder, f'masks overlap, in {shared} pixels')
    pool.shutdown()
    return found


def _mask(path: Path) -> tuple[np.ndarray, dict | None]:
    """A mask [H, W] and its outline, None where it is empty."""
    mask = cv2.imread(
        str(path), cv2.IMREAD_UNCHANGED
    )  # sets have tens of thousands, and Pillow takes half as long again
    mask = class_map(path) if mask is None else mask  # which says what is wrong
    mask = (mask[..., :3].max(-1) if mask.ndim == 3 else mask) != 0
    return mask, run_lengths(mask) if mask.any() else None


# --- a class for each pixel ---


def _pairs_of(folder: Path, names: list[str], files: Files) -> dict[Path, Path]:
    """The map of each picture, for maps that are in a folder: pictures of the same name that are not in it."""
    maps = [name for name in names if name.lower().endswith('.png')]
    if not maps or not _looks_like_maps(folder / maps[0], files):
        return {}
    stems: dict[str, list[Path]] = {}
    for path in files.ending(*IMAGE_SUFFIXES):
        if path.parent != folder:
            stems.setdefault(path.stem, []).append(path)
    pairs = {}
    for name in maps:
        stem = Path(name).stem
        bare = [stem.removesuffix(ending) for ending in _ENDINGS if stem.endswith(ending)]
        fitting = [path for each in bare for path in stems.get(each, [])]
        fitting = [path for path in fitting if not _OF_LABELS.search(path.parent.name)] or fitting
        if fitting:
            pairs[min(fitting, key=lambda path: _distance(path.parent, folder))] = folder / name
    return pairs


def _distance(one: Path, other: Path) -> tuple[int, int]:
    """How far two folders are: the parts that only one has, and how unlike their names are."""
    own, others = set(one.parts), set(other.parts)
    return len(own ^ others), -int(other.name.startswith(one.name))


def _looks_like_maps(path: Path, files: Files) -> bool:
    """One channel or a palette; or colours, where a table says what they mean."""
    try:
        with Image.open(path) as image:
            return image.mode in ('L', 'P', '1', 'I', 'I;16') or (image.mode in ('RGB', 'RGBA') and bool(_table(files)))
    except OSError:
        return False


def _maps(pairs: dict[Path, Path], files: Files) -> Found:
    found, splits = Found('label maps', files.root), _listed_splits(files)
    _take_names(found, files)
    for path, label_map in sorted(pairs.items()):
        picture = found.picture(path, splits.get(path.name) or split_of(path.relative_to(files.root).parent))
        picture.label_map = label_map
    labelled = {path.parent for path in pairs}
    for path in files.ending(*IMAGE_SUFFIXES):
        if path.parent in labelled and path not in pairs and path not in pairs.values():
            found.wrong(path, 'has no label map: left out')
    return found


def _listed_splits(files: Files) -> dict[str, str]:
    """The split of each picture that ``train.txt`` and the like name, by the name without folders."""
    splits = {}
    for path in files.ending('.txt', '.lst'):
        if listed := _LISTS.fullmatch(path.name.lower()):
            for line in filter(str.strip, path.read_text(errors='replace').splitlines()):
                name = Path(line.split()[0].replace('\\', '/')).name
                for suffix in ('',) if Path(name).suffix else IMAGE_SUFFIXES:
                    splits[f'{name}{suffix}'] = listed.group(1)
    return splits


def _table(files: Files) -> list[tuple[str, tuple[int, int, int] | None]]:
    """Names of classes in the order of their values, each with its colour where there is one."""
    for path in files.ending(*_NAMES, *_TABLES):
        text = path.read_text(errors='replace')
        if path.suffix == '.csv':
            rows = [row for row in csv.reader(text.splitlines()) if row]
            rows = [row for row in rows if len(row) >= 4 and all(each.strip().isdigit() for each in row[1:4])]
            return [(row[0].strip(), tuple(int(each) for each in row[1:4])) for row in rows]
        made = []
        for line in filter(None, (line.split('#')[0].strip() for line in text.splitlines())):
            numbers = re.search(r'(\d+)[\s,]+(\d+)[\s,]+(\d+)', line)
            name = re.sub(r'\d+[\s,]+\d+[\s,]+\d+', '', line).strip(' \t:,')
            made.append((name, tuple(map(int, numbers.groups())) if numbers else None))
        return made
    return []


def _take_names(found: Found, files: Files) -> None:
    for value, (name, color) in enumerate(_table(files)):
        found.map_names[value] = name
        if color is not None:
            found.colors[color] = value


def _listed_in_yaml(path: Path, content: dict) -> Found:
    """A YAML of ``classes``, and ``images`` and ``masks`` for each split."""
    found = Found('label maps', path)
    for value, entry in content['classes'].items():
        found.map_names[int(value)] = str(entry['name'] if isinstance(entry, dict) else entry)
    found.void |= {int(value) for value in content.get('ignore_classes') or ()}
    for split in ('train', 'val', 'test'):
        given = content.get(split)
        if not isinstance(given, dict):
            continue
        images, masks = (located(str(given.get(key, '')), [path.parent]) for key in ('images', 'masks'))
        if images is None or masks is None:
            found.missing.append(f'{path}: {split}: {given}')
            continue
        own = {each.stem: each for each in followed(masks).iterdir() if each.suffix.lower() == '.png'}
        for image in sorted(followed(images).iterdir()):
            if image.suffix.lower() in IMAGE_SUFFIXES and image.stem in own:
                found.picture(image, split).label_map = own[image.stem]
            elif image.suffix.lower() in IMAGE_SUFFIXES:
                found.wrong(image, f'has no label map in {masks}: left out')
    return found
