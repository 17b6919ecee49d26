"""Arrays as COCO results: records of an image, RLE of masks, and the result files."""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np

from icconv_mm_runtime.arrays import Arrays
from icconv_mm_runtime.files import open_atomic, write_together
from icconv_mm_runtime.thresholds import reaches


def listed_names(paths: Sequence[str]) -> list[str]:
    """Returns the names of images in a list: their own, or their paths from the folder of all if two are equal."""
    names = [Path(path).name for path in paths]
    if len(set(names)) == len(names):
        return names
    whole = [Path(path).absolute() for path in paths]
    if len({path.anchor for path in whole}) > 1:  # drives
        return [path.as_posix() for path in whole]
    folder = os.path.commonpath([path.parent for path in whole])
    return [path.relative_to(folder).as_posix() for path in whole]


def coco_records(
    task: Mapping[str, Any],
    arrays: Arrays,
    image_id: int,
    score_thr: float = 0.0,
    category_ids: Sequence[int] | None = None,
    shape: Sequence[int] | None = None,
) -> list[dict]:
    """Returns the COCO results of an image: objects, people, classes, or one mask per class of a segmentation map.

    Args:
        task: The task's description; its ``kind`` is used.
        arrays: The predictions.
        image_id: Id of the image.
        score_thr: Arrays with lower scores are skipped.
        category_ids: The category of each label; by default the label plus 1.
        shape: Height and width to which masks are resized; by default they keep theirs.
    """
    entry = {'image_id': image_id}

    def category(label: int) -> int:
        return int(label) + 1 if category_ids is None else category_ids[label]

    if task['kind'] == 'semantic':
        labels = np.flatnonzero(np.bincount(arrays['seg_map'].ravel()))
        if category_ids is not None:
            labels = labels[labels < len(category_ids)]
        masks = ((category(label), encode_rle(arrays['seg_map'] == label, shape)) for label in labels)
        return [{**entry, 'category_id': number, 'segmentation': mask} for number, mask in masks]
    scores = arrays['scores']
    rounded = [round(float(score), 5) for score in scores]
    if task['kind'] == 'classification':
        order = [int(label) for label in np.argsort(-scores, kind='stable') if reaches(scores[label], score_thr)]
        return [{**entry, 'category_id': category(label), 'score': rounded[label]} for label in order]
    kept = np.flatnonzero(reaches(scores, score_thr))
    if 'keypoints' in arrays:
        records = []
        for i in kept:
            triples = np.column_stack([arrays['keypoints'][i], arrays['keypoint_scores'][i]]).round(4)
            keypoint_record = {'category_id': category(0), 'keypoints': triples.ravel().tolist(), 'score': rounded[i]}
            records.append(entry | keypoint_record)
        return records
    records = []
    for i in kept:
        x1, y1, x2, y2 = (float(value) for value in arrays['boxes'][i])
        box = [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]
        record = {**entry, 'category_id': category(arrays['labels'][i]), 'bbox': box, 'score': rounded[i]}
        if 'masks' in arrays:
            record['segmentation'] = encode_rle(arrays['masks'][i], shape)
        if 'tracks' in arrays and arrays['tracks'][i]:
            record['track_id'] = int(arrays['tracks'][i])
        records.append(record)
    return records


def encode_rle(mask: np.ndarray, shape: Sequence[int] | None = None) -> dict:
    """Encodes a mask ``[H, W]``, resized to ``shape`` if given, as COCO's compressed RLE, which JSON can hold."""
    columns = cv2.transpose(np.asarray(mask, bool).view(np.uint8))  # faster than numpy
    if shape is not None and mask.shape != tuple(shape[:2]):
        columns = cv2.resize(columns, tuple(int(side) for side in shape[:2]), interpolation=cv2.INTER_NEAREST)
    try:
        from pycocotools.mask import encode  # several times as fast, on noise twenty times
    except ImportError:
        counts = _letters(columns.ravel())
    else:
        counts = encode(columns.T)['counts'].decode('ascii')
    return {'size': list(columns.shape[::-1]), 'counts': counts}


def _letters(flat: np.ndarray) -> str:
    """Encodes the lengths of runs, zeros first, as COCO does: differences in groups of 5 bits, each a character."""
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *([0] if flat.size and flat[0] else []), *changes, flat.size]).tolist()
    letters = []
    for position, count in enumerate(counts):
        value = count - counts[position - 2] if position > 2 else count
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            letters.append(chr(bits + (32 if more else 0) + 48))
    return ''.join(letters)


def write_results(
    out: Path,
    tasks: Mapping[str, Mapping[str, Any]],
    rows: Callable[[], Iterable[Mapping[str, Any]]],
    category_ids: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Path]:
    """Writes the results of all tasks, and the images and categories that they refer to, as one.

    Args:
        out: The folder.
        tasks: The description of each task by name, '' for a network of one task: its ``classes``, and of poses
            ``keypoints`` and ``skeleton``.
        rows: Returns the rows of a :class:`icconv_mm_runtime.records.ResultLog`, anew at each call: the results of a
            whole run need not fit the memory.
        category_ids: The category of each label of each task; by default the label plus 1.

    Returns:
        The paths by file name, ``predictions`` and ``images``, each with the name of the task.
    """
    names = listed_names([row['path'] for row in rows()])
    ends = {task: f'.{task}' if task else '' for task in tasks}
    keys = [f'{kind}{end}' for end in ends.values() for kind in ('predictions', 'images')]
    written = {key: out / f'{key}.json' for key in keys}
    entries = [f'images{end}.json' for end in ends.values()]
    with write_together(out, entries) as folder, ExitStack() as opened:
        files = {key: opened.enter_context(open_atomic(folder / f'{key}.json')) for key in keys}
        lists = {key: _JSONList(file, key.startswith('images')) for key, file in files.items()}
        for row, name in zip(rows(), names, strict=True):
            for task, end in ends.items():
                lists[f'images{end}'].add({**row['image'], 'file_name': name})
                for record in row['records'][task]:
                    lists[f'predictions{end}'].add(record)
        for task, end in ends.items():
            lists[f'predictions{end}'].close()
            categories = _categories(tasks[task], (category_ids or {}).get(task))
            lists[f'images{end}'].close({'annotations': [], 'categories': categories})
    return written


class _JSONList:
    """Writes a list as JSON, entry by entry; or an object whose entry ``images`` it is."""

    def __init__(self, file: BinaryIO, is_of_images: bool) -> None:
        self._file, self._separator = file, b''
        file.write(b'{"images": [' if is_of_images else b'[')

    def add(self, entry: Any) -> None:
        self._file.write(self._separator + json.dumps(entry).encode())
        self._separator = b', '

    def close(self, rest: Mapping[str, Any] | None = None) -> None:
        self._file.write(b']' + (b'' if rest is None else b', ' + json.dumps(rest).encode()[1:]))


def _categories(description: Mapping[str, Any], ids: Sequence[int] | None) -> list[dict]:
    posed: dict[str, list] = {}
    if description.get('keypoints'):
        links = [[int(a) + 1, int(b) + 1] for a, b in description.get('skeleton') or ()]  # COCO counts from 1
        posed = {'keypoints': list(description['keypoints']), 'skeleton': links}
    ids = range(1, len(description['classes']) + 1) if ids is None else ids
    return [{'id': number, 'name': name, **posed} for number, name in zip(ids, description['classes'])]
