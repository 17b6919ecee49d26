"""From a folder as it lies to what networks train on: COCO's JSON and index PNGs beside the run, and what is wrong."""

import hashlib
import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from icconv_mm.annotations import TASKS, limits
from icconv_mm.annotations.convert_seg_maps import prepare_maps
from icconv_mm.annotations.converted import Prepared
from icconv_mm.annotations.dataset import SPLITS, Found, Picture, Thing, assign_splits
from icconv_mm.annotations.images_on_disk import ANNOTATION_SUFFIXES, IMAGE_FORMATS, IMAGE_SUFFIXES, Files, loaded_shape
from icconv_mm.annotations.left_out import check_left_out
from icconv_mm.annotations.polygons import measure
from icconv_mm.annotations.readers.class_folders import class_folder_sources
from icconv_mm.annotations.readers.coco import coco_sources
from icconv_mm.annotations.readers.deeplabcut import deeplabcut_sources
from icconv_mm.annotations.readers.labelme import labelme_sources
from icconv_mm.annotations.readers.seg_maps import seg_map_sources
from icconv_mm.annotations.readers.voc import voc_sources
from icconv_mm.annotations.readers.yolo import yolo_sources
from icconv_mm.annotations.reading import DatasetError, fault_of, read_bytes
from icconv_mm.annotations.skeleton import KEYPOINTS_FILE, find_flip_pairs, sigmas_of
from icconv_mm.arguments import require_known
from icconv_mm.errors import ArgumentError, UserError, check_names, is_unprintable, sentence
from icconv_mm.files import whole_file, write_json

_READERS = (coco_sources, yolo_sources, voc_sources, seg_map_sources, deeplabcut_sources, labelme_sources)
_DECODING = 4  # pictures are decoded at once
_PERSON = 0.53  # of a box is a person, where there is no mask: as CrowdPose and AIC are judged
_GENERIC = re.compile(r'(point|keypoint|kpt|kp)?[ _-]?\d+', re.IGNORECASE)  # a name that says nothing of a keypoint
_COMMON = ('data', 'annotations')  # names of files that many sets have
_FORMATS = (
    "COCO's JSON, YOLO's YAML, Pascal VOC, label PNGs beside pictures, a mask PNG per instance, DeepLabCut, LabelMe, "
    'CVAT, folders of classes'
)


def find(*places: str | Path, strict: bool = False) -> list[Found]:
    """All that is labelled below folders, or in files of labels.

    Args:
        places: Folders and files.
        strict: Whether a set is refused if anything of it is left out, here or when it is prepared.

    Raises:
        MissingFileError: A place is not there.
        DatasetError: Nothing there is of a format that is read; a file that holds a whole split cannot be read; or too
            much is left out (:func:`icconv_mm.annotations.left_out.check_left_out`).
    """
    found: list[Found] = []
    for place in map(Path, places):
        files = Files(place.absolute())
        own = [_read(*source) for reader in _READERS for source in _sources(reader, files)]
        unreadable = [each for each in files.problems if each[0].lower().endswith(ANNOTATION_SUFFIXES)]
        if not own and files.only is None and not any(what.endswith('left out') for _, what in unreadable):
            own = [_read(*source) for source in class_folder_sources(files)]
        labelled = [each for each in own if each.tasks()]
        if not labelled:
            for file, what in [problem for each in own for problem in each.problems] + files.problems:
                raise DatasetError(f'{place}: none of its labels can be used, the first: {file}: {what}')
            raise DatasetError(f'{place}: nothing there is labelled in a format that is read: {_FORMATS}')
        empty = [each for each in own if each not in labelled]  # what is wrong with them is said of another
        labelled[0].problems = files.problems + labelled[0].problems + [each for one in empty for each in one.problems]
        labelled[0].missing += [each for one in empty for each in one.missing]
        for each in labelled:
            each.strict = strict
            _say_outside(each, files)
            check_left_out(each)
        found += labelled
    return found


def _say_outside(found: Found, files: Files) -> None:
    """Take down pictures and label maps that are used, and lie elsewhere than where one looked."""
    roots = [os.path.join(os.path.realpath(root), '') for root in (files.root, files.root.parent / 'images')]
    used = {str(p.path): None for p in found.pictures.values()}
    used |= {os.path.realpath(p.label_map): None for p in found.pictures.values() if p.label_map is not None}
    outside = [path for path in used if not path.startswith(tuple(roots))]
    if outside:  # but through links that lie there
        linked = set(map(os.path.realpath, files.ending(*IMAGE_SUFFIXES)))
        outside = [path for path in outside if path not in linked]
    if outside:
        found.wrong(files.root, f'{len(outside)} files lie outside the folder, the first: {outside[0]}')


def _sources(reader: Callable[[Files], Iterable[tuple]], files: Files) -> list[tuple[str, Path, Callable[[], Found]]]:
    """What a reader recognises; whatever it raises but an error for the user is a folder that it cannot look into."""
    try:
        return list(reader(files))
    except UserError:
        raise
    except Exception as error:
        raise DatasetError(f'{files.root}: {fault_of(error)}') from error


def _read(kind: str, place: Path, read: Callable[[], Found]) -> Found:
    """What a reader finds; whatever else it raises is a file that is not of its format."""
    try:
        found = read()
    except UserError:
        raise
    except Exception as error:
        raise DatasetError(f'{place}: not read as {kind}: {fault_of(error)}') from error
    if len(found.keypoints) > limits.KEYPOINTS:
        most = limits.KEYPOINTS
        raise DatasetError(f'{place}: {kind}: {len(found.keypoints)} keypoints, of which at most {most} are read')
    return found


def choose(found: Sequence[Found], task: str) -> Found:
    """The one that has labels for a task: of several, the one that has the fewest other labels.

    Raises:
        ArgumentError: None has, or several have alike.
    """
    fitting = [each for each in found if task in each.tasks()]
    if not fitting:
        there = '; '.join(f'{each.place} ({each.format}): {", ".join(each.tasks())}' for each in found)
        raise ArgumentError('task', f'no labels for {task!r}: {there}')
    least = min(len(each.tasks()) for each in fitting)
    best = [each for each in fitting if len(each.tasks()) == least]
    if len(best) > 1:
        names = ', '.join(str(each.place) for each in best)
        raise ArgumentError('data', f'{len(best)} sets have labels for {task!r}: name one of {names}')
    return best[0]


def name_of(place: str | Path) -> str:
    """What runs on a set are named after: its folder, or its file unless many sets have one of that name."""
    path = Path(os.path.abspath(place))
    if path.is_dir():
        return path.name
    return path.parent.name if path.stem in _COMMON else path.stem


def prepare(
    found: Found,
    task: str,
    folder: Path,
    *,
    classes: Sequence[str] | None = None,
    void: Sequence[int] = (),
    thorough: bool = False,
    shared: bool = False,
    absolute: bool = False,
) -> Prepared:
    """Check what was found for a task, and write it below a folder.

    Args:
        found: What a reader found; its ``problems`` grow.
        task: One of :data:`icconv_mm.annotations.TASKS`.
        folder: Gets ``TASK_SPLIT.json``, the names of classes or keypoints and, where label maps are not as networks
            read them, ``maps``.
        classes: The names to learn, in their order; for label maps without names, the name of each value from 0.
        void: Values of label maps that mean nothing.
        thorough: Whether every label map is read, and every picture compared with the others.
        shared: Whether the splits are those of several tasks: they stay as they are, and :func:`fill_splits` follows.
        absolute: Whether files name images by their whole paths; else by those below ``root`` of what is returned.

    Raises:
        DatasetError: Nothing is left to learn from, or too much is left out.
        InputError: A class that the data do not have, or the name of a class or a keypoint that no file can hold.
    """
    pictures = found.labelled(task)
    made = Prepared(task, _common_root(pictures))
    given = {picture.path: picture.split for picture in pictures}
    if not shared and (note := assign_splits(pictures)):
        made.notes.append(note)
    pictures = _readable(found, pictures, thorough, given)
    check_duplicates(found, pictures) if thorough else None
    if task == 'semantic':
        pictures = prepare_maps(found, made, pictures, folder, classes, {*void, *found.void}, thorough)
    elif task == 'classification':
        there = sorted({picture.label for picture in pictures})
        made.classes = require_known(classes, there, 'classes: no class') if classes else there
        counts = Counter(picture.label for picture in pictures)
        made.counts = {name: counts[name] for name in made.classes}
        pictures = [picture for picture in pictures if picture.label in made.counts]
    else:
        pictures = _prepare_things(found, made, pictures, classes)
    check_names(made.classes, f'{found.place}: the class')
    check_names(made.keypoints, f'{found.place}: the keypoint')
    if not pictures or (not made.counts and task != 'semantic'):
        raise nothing_left(found, f'no picture is left with labels for {task!r}')
    check_left_out(found)
    made.sizes = np.array([picture.size for picture in pictures])
    _write_names(made, folder)
    for split in SPLITS:
        own = [picture for picture in pictures if picture.split == split]
        if own:
            made.splits[split], made.paths[split] = len(own), [picture.path for picture in own]
            made.things[split] = sum(len(picture.things or ()) for picture in own)
            path = folder / f'{task}_{split}.{"txt" if task == "classification" else "json"}'
            made.files[split] = _write(made, own, path, absolute)
    if not shared:
        fill_splits([made])
    return made


def fill_splits(prepared: Collection[Prepared]) -> None:
    """Let another split serve where no task that is learned has pictures for one.

    Where some have them, the other tasks are left out of it.
    """
    for missing, instead, note in (
        ('val', 'test', 'no split for validation: the test split serves'),
        ('val', 'train', 'what trains also validates: its figures say nothing of other pictures'),
        ('test', 'val', ''),
        ('train', 'val', 'no picture for training is left'),
    ):
        if any(missing in made.files for made in prepared):
            continue
        for made in prepared:
            if instead in made.files:
                for each in (made.files, made.paths, made.things):
                    each[missing] = each[instead]
                if note and note not in made.notes:
                    made.notes.append(note)


def nothing_left(found: Found, what: str) -> DatasetError:
    """The error that nothing can be learned from a set, with the first thing that is wrong with it."""
    first = f'; of {len(found.problems)} problems the first: {": ".join(found.problems[0])}' if found.problems else ''
    return DatasetError(f'{found.place}: {what}{first}')


def _common_root(pictures: Sequence[Picture]) -> Path:
    folders = [str(picture.path.parent) for picture in pictures]
    return Path(os.path.commonpath(folders)) if folders else Path()


def _readable(found: Found, pictures: Sequence[Picture], thorough: bool, splits: Mapping[Path, str]) -> list[Picture]:
    """The pictures whose beginning can be read; if ``thorough``, all of them.

    Args:
        found: Takes down the others.
        pictures: Those of a task.
        thorough: Whether they are decoded.
        splits: The split of each as the set has it.
    """
    known = set(found.problems)  # of another task
    whole = [picture for picture in pictures if min(picture.size) > 0]  # of the others it takes down the problem
    if thorough:
        with ThreadPoolExecutor(_DECODING) as pool:
            for picture, defect in zip(whole, pool.map(_defect_of, whole)):
                picture.problem = defect or picture.problem
    for picture in pictures:
        if is_unprintable(str(picture.path)):  # lists have a line for each
            picture.problem = 'its path has a control character, or is not UTF-8'
        if picture.problem and (str(picture.path), f'{picture.problem}: left out') not in known:
            found.leave_out(picture.path, picture.problem, picture.path, splits[picture.path])
    return [picture for picture in pictures if not picture.problem]


def _defect_of(picture: Picture) -> str:
    """Why a picture cannot be decoded, as training does it as well; '' if it can."""
    width, height = picture.size
    try:
        content = read_bytes(picture.path, limits.IMAGE_BYTES)
        with Image.open(BytesIO(content), formats=IMAGE_FORMATS) as image:
            image.load()  # OpenCV takes some that are cut off
        shape = loaded_shape(content)
    except Exception as error:  # whatever a decoder raises, the file is damaged
        return f'cannot be read ({sentence(error)})'
    loaded = ' x '.join(map(str, shape)) or 'nothing'
    return '' if shape == (height, width, 3) else f'OpenCV loads it as {loaded}, expected {height} x {width} x 3'


def check_duplicates(found: Found, pictures: Sequence[Picture]) -> None:
    """Take down pictures of equal content, above all those that are in different splits."""
    by_content: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        by_content[hashlib.sha256(picture.path.read_bytes()).hexdigest()].append(picture)
    for same in by_content.values():
        if len(same) > 1:
            splits = sorted({picture.split for picture in same})
            others = ', '.join(str(picture.path) for picture in same[1:])
            across = f'the splits {" and ".join(splits)} share it' if len(splits) > 1 else 'of the same split'
            found.wrong(same[0].path, f'has the content of {others}: {across}')


# --- things ---


def _prepare_things(
    found: Found, made: Prepared, pictures: Sequence[Picture], classes: Sequence[str] | None
) -> list[Picture]:
    """Settle which things are learned; gives copies of the pictures with these alone, as other tasks learn others."""
    _check_things(found, pictures)
    known, what = list(found.classes), 'classes: no class'
    if made.task == 'pose':
        known, what = _posed(found, made, pictures), 'classes: no class with keypoints is called'
        made.keypoints, made.skeleton, made.flips = found.keypoints, found.skeleton, _flips(found, made)
    names = require_known(classes, known, what) if classes else known
    learned, wanted = [], set(names)
    for picture in pictures:
        things = [thing for thing in picture.things if thing.name in wanted]
        if made.task == 'instance':
            things = [thing for thing in things if _has_mask(found, thing)]
        learned.append(replace(picture, things=things))
    made.classes = names if made.task != 'pose' or len(names) == 1 else ['object']
    _count_things(made, learned)
    return learned


def _posed(found: Found, made: Prepared, pictures: Sequence[Picture]) -> list[str]:
    """The classes that have keypoints; the loss would pass over regions of others, as of people without keypoints."""
    there = {thing.name for picture in pictures for thing in picture.things}
    posed = {thing.name for picture in pictures for thing in picture.things if thing.keypoints is not None}
    if there - posed:
        made.notes.append(f'never with a keypoint, left out: {", ".join(sorted(there - posed))}')
    return [name for name in found.classes if name in posed]


def _has_mask(found: Found, thing: Thing) -> bool:
    if thing.outline is None and not thing.crowd:
        found.wrong(thing.place, 'has no mask: left out')
        return False
    return True


def _check_things(found: Found, pictures: Sequence[Picture]) -> None:
    """Leave out things that nothing can be learned from, and cut boxes at the border."""
    for picture in pictures:
        kept = []
        for thing in picture.things:
            problem, is_kept = _settle(thing, picture.size)
            if is_kept:
                kept.append(thing)
                found.wrong(thing.place, problem) if problem else None
            else:
                found.leave_out(thing.place, problem, picture.path, picture.split)
        picture.things = kept


def _settle(thing: Thing, size: tuple[int, int]) -> tuple[str, bool]:
    """Box and area of a thing, inside its picture; gives what is wrong with them, and whether it can be learned."""
    problem = measure(thing, size)
    x, y, w, h = thing.box
    if not np.isfinite([x, y, w, h]).all():
        return f'{thing.name}: the box {thing.box} is not finite', False
    if w <= 0 or h <= 0:
        return f'{thing.name}: the box has {w:g} x {h:g} pixels', False
    left, top, right, bottom = max(x, 0), max(y, 0), min(x + w, size[0]), min(y + h, size[1])
    if right <= left or bottom <= top:
        return f'{thing.name}: the box is outside the picture of {size[0]} x {size[1]}', False
    thing.box = [left, top, right - left, bottom - top]
    beyond = max(-x, -y, x + w - size[0], y + h - size[1])
    if beyond > 1.5:
        problem = problem or f'{thing.name}: the box goes {beyond:.1f} pixels beyond the picture: cut'
    return problem, True


def _count_things(made: Prepared, pictures: Sequence[Picture]) -> None:
    things = [(thing, max(picture.size)) for picture in pictures for thing in picture.things]
    names = Counter(thing.name for thing, _ in things)
    if made.task == 'pose':
        count = sum(thing.keypoints is not None for thing, _ in things)
        made.counts = {made.classes[0]: count} if count else {}
    else:
        made.counts = {name: names[name] for name in made.classes} if names else {}
    boxes = [(thing.box[2] / longer, thing.box[3] / longer) for thing, longer in things]
    made.boxes = np.array(boxes).reshape(-1, 2)


def _flips(found: Found, made: Prepared) -> list[tuple[str, str]] | None:
    """Keypoints that change places in the mirror: as a file says, else by their names; None if these say nothing."""
    names, flips = found.keypoints, found.flips
    if flips:
        swaps = [isinstance(k, int) and 0 <= k < len(flips) and flips[k] == i for i, k in enumerate(flips)]
        if len(flips) == len(names) and all(swaps):
            return [(names[i], names[k]) for i, k in enumerate(flips) if i < k]
        expected = f'expected each number from 0 to {len(names) - 1} in the place of its partner'
        found.wrong(found.place, f'flip_idx is {flips}, {expected}: not used')
    pairs = find_flip_pairs(names)
    if not pairs and all(map(_GENERIC.fullmatch, names)):
        made.notes.append(
            'nothing says which keypoints change places in the mirror: pictures are not mirrored (see flip_pairs in '
            f'{KEYPOINTS_FILE} and flip_prob in the config)'
        )
        return None
    alone = [name for name in names if not any(name in pair for pair in pairs)]
    if alone:
        made.notes.append(
            f'in the mirror stay, as their names have no partner: {", ".join(alone[:8])}'
            f'{", ..." if len(alone) > 8 else ""} (see flip_pairs in {KEYPOINTS_FILE})'
        )
    return pairs


# --- writing ---


def _write(made: Prepared, pictures: Sequence[Picture], path: Path, absolute: bool) -> Path:
    """The labels of one split; images by their whole paths, or as below ``made.root``."""
    names = [str(each.path if absolute else each.path.relative_to(made.root)) for each in pictures]
    labels = {name: label for label, name in enumerate(made.classes)}
    if made.task == 'classification':
        lines = [f'{name} {labels[picture.label]}\n' for name, picture in zip(names, pictures)]
        _write_text(path, ''.join(lines))
        return path
    images, annotations, numbers = [], [], itertools.count(1)
    for number, (name, picture) in enumerate(zip(names, pictures), 1):
        width, height = picture.size
        images.append({'id': number, 'file_name': name, 'width': width, 'height': height})
        if made.task == 'semantic':
            is_written = picture.label_map.is_relative_to(path.parent.absolute())
            own = picture.label_map.relative_to(path.parent.absolute()) if is_written else picture.label_map
            images[-1]['label_map'] = str(own)
            continue
        for thing in picture.things:
            annotations.append({'id': next(numbers), 'image_id': number, **_entry(made, thing, labels)})
    categories: list[dict[str, Any]] = [{'id': i, 'name': name} for i, name in enumerate(made.classes, 1)]
    if made.task == 'pose':
        skeleton = [[a + 1, b + 1] for a, b in made.skeleton]
        categories[0] |= {'keypoints': made.keypoints, 'skeleton': skeleton}
    write_json(path, {'images': images, 'annotations': annotations, 'categories': categories})
    return path


def _write_names(made: Prepared, folder: Path) -> None:
    """The file of class names, a line each, or for poses of keypoints, which a config names as ``metainfo``."""
    if made.task != 'pose':
        _write_text(folder / f'{made.task}_classes.txt', ''.join(f'{name}\n' for name in made.classes))
        return
    pairs, sigmas = made.flips or [], sigmas_of(made.keypoints)
    own = dict(keypoints=made.keypoints, skeleton=made.skeleton, flip_pairs=pairs, sigmas=sigmas)
    write_json(folder / KEYPOINTS_FILE, {'classes': made.classes[:1], **own}, indent=1)


def _write_text(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())


def _entry(made: Prepared, thing: Thing, labels: Mapping[str, int]) -> dict:
    entry: dict[str, Any] = {'bbox': [round(value, 3) for value in thing.box], 'area': round(thing.area, 3)}
    entry['category_id'] = 1 if made.task == 'pose' else labels[thing.name] + 1
    entry['iscrowd'] = int(thing.crowd)
    if thing.outline is not None:
        entry['segmentation'] = thing.outline
    elif made.task == 'instance':  # a crowd without an outline
        x, y, w, h = thing.box
        entry['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    if made.task == 'pose':
        entry['area'] *= _PERSON if thing.guessed else 1
        none = [0] * (3 * len(made.keypoints))
        entry['keypoints'] = [round(float(value), 3) for value in thing.keypoints or none]
        entry['num_keypoints'] = sum(v > 0 for v in entry['keypoints'][2::3])
    return entry


def all_tasks(found: Sequence[Found]) -> list[str]:
    """The tasks that one network can learn from all that was found: boxes only where there are no masks."""
    there = {task for each in found for task in each.tasks()}
    return [
        task
        for task in TASKS
        if task in there and task != 'classification' and not (task == 'detection' and 'instance' in there)
    ]
