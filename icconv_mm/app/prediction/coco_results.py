"""Writes predictions as COCO results files."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from icconv_mm.app.annotations.images_on_disk import as_path
from icconv_mm.app.prediction.tracking import Tracker
from icconv_mm.datasets.checks import check_coco_file
from icconv_mm.errors import ArgumentError, naming
from icconv_mm.files import require_file
from icconv_mm_runtime.coco import coco_records, write_results
from icconv_mm_runtime.results import Result
from icconv_mm_runtime.thresholds import shown

_TRACKED_KINDS = ('detection', 'instance')


@dataclass(frozen=True)
class TaskResults:
    """COCO results of one task of a network.

    Attributes:
        name: Name of the task; '' for a network of a single task.
        description: Its description as in an exported file.
        category_ids: COCO ids of the classes, by label.
        tracker: Numbers the objects of a video, which are then drawn with their numbers.
    """

    name: str
    description: Mapping[str, Any]
    category_ids: Sequence[int]
    tracker: Tracker | None = None

    @property
    def kind(self) -> str:
        """Kind of the predictions, as in the metadata of an exported file."""
        return self.description['kind']

    def records(self, image_id: int, result: Result, score_thr: float) -> list[dict]:
        """Returns the entries of a COCO results file for an image."""
        # a network whose classes have no names has no categories either
        ids, arrays = self.category_ids or None, result.tasks[self.name]
        return coco_records(self.description, arrays, image_id, score_thr, ids, result.ori_shape)

    def drawn(self, image_id: int, result: Result, score_thr: float | None) -> list[dict]:
        """Returns the entries of the objects that are drawn."""
        every = self.records(image_id, result, 0.0)
        return [every[k] for k in sorted(shown(self.description, result.tasks[self.name], score_thr))]


@dataclass(frozen=True)
class CocoResults:
    """COCO results of a network.

    Attributes:
        parts: Those of each task.
        image_ids: COCO id of each image.
        score_thr: Lowest score of the entries.
    """

    parts: Sequence[TaskResults]
    image_ids: Mapping[Path, int]
    score_thr: float

    def row(self, image_id: int, name: str, result: Result) -> dict[str, Any]:
        """Returns the entry of an image, or of the next frame of a video, and the records of each task for it."""
        height, width = result.ori_shape
        for part in self.parts:
            if part.tracker is not None:
                arrays = result.tasks[part.name]
                arrays['tracks'] = part.tracker.update(arrays)
        return {
            'image': {'id': image_id, 'file_name': name, 'width': width, 'height': height},
            'records': {part.name: part.records(image_id, result, self.score_thr) for part in self.parts},
        }

    def tracked(self, tracker: Callable[[Mapping[str, Any]], Tracker]) -> 'CocoResults':
        """Returns the results of a video, in which objects have numbers.

        Args:
            tracker: Returns a tracker for the description of a task with boxes.

        Raises:
            ArgumentError: No task has boxes. MissingLibraryError: The library trackers is not installed.
        """
        kinds = [part.kind for part in self.parts]
        if not set(_TRACKED_KINDS) & set(kinds):
            raise ArgumentError('track', f'a network for {", ".join(kinds)} has no boxes to track')
        trackers = [tracker(part.description) if part.kind in _TRACKED_KINDS else None for part in self.parts]
        parts = [replace(part, tracker=tracker) for part, tracker in zip(self.parts, trackers, strict=True)]
        return replace(self, parts=parts)

    def write(self, out: Path, rows: Callable[[], Iterable[dict]]) -> dict[str, Path]:
        """Writes the results of all tasks, and the images and categories that they refer to; returns files by name."""
        ids = {part.name: part.category_ids for part in self.parts}
        with naming(str(out), OSError):
            return write_results(out, {part.name: part.description for part in self.parts}, rows, ids)


def results_of(
    descriptions: Mapping[str, Mapping[str, Any]],
    score_thr: float,
    paths: Sequence[Path] = (),
    ann_file: str | None = None,
) -> CocoResults:
    """Returns empty results of a network.

    Args:
        descriptions: The description of each task by name.
        score_thr: Lowest score of the entries.
        paths: The images.
        ann_file: COCO annotation file whose ids images and categories get; None numbers them from 1.

    Raises:
        InputError: The annotation file cannot be used, or does not fit the images.
    """
    parts = [
        TaskResults(name, description, list(range(1, len(description['classes']) + 1)))
        for name, description in descriptions.items()
    ]
    if ann_file is None:
        return CocoResults(parts, {path: i for i, path in enumerate(paths, start=1)}, score_thr)
    require_file(ann_file, 'ann_file')
    content = check_coco_file(ann_file)
    ids = {category['name']: category['id'] for category in content['categories']}
    unused = max(ids.values(), default=0) + 1
    for k, part in enumerate(parts):
        classes = part.description['classes']
        if absent := [name for name in classes if name not in ids]:
            what = f'{ann_file} has no categories {absent}; they get ids from {unused}'
            print_log(what, 'current', logging.WARNING)
        numbered = {name: unused + i for i, name in enumerate(absent)} | ids
        parts[k] = replace(part, category_ids=[numbered[name] for name in classes])
    return CocoResults(parts, match_images(paths, content['images'], ann_file), score_thr)


def match_images(paths: Sequence[Path], images: Sequence[dict], ann_file: str) -> dict[Path, int]:
    """Returns the id of each image: that of the entry whose file name, folders included, ends the image's path.

    Raises:
        ArgumentError: An image matches no entry or several, or several images match an entry.
    """
    by_name: dict[str, list[dict]] = {}
    for image in images:
        by_name.setdefault(as_path(image['file_name']).name, []).append(image)
    matched: dict[Path, int] = {}
    for path in paths:
        named, ends = by_name.get(path.name, []), set()
        for whole in (path.absolute().parts, path.resolve().parts):
            ends |= {whole[start:] for start in range(len(whole))}
        entries = [name for name in named if as_path(name['file_name']).parts in ends]
        if len(entries) != 1:
            count = f'{len(entries)} images' if entries else 'no image'
            other = f', only {named[0]["file_name"]!r}' if named and not entries else ''
            raise ArgumentError('ann_file', f'{ann_file}: {count} {path.name!r} for {path}{other}')
        matched[path] = entries[0]['id']
    twice = [id for id, count in Counter(matched.values()).items() if count > 1]
    if twice:
        same = ', '.join(str(path) for path, id in matched.items() if id == twice[0])
        raise ArgumentError('ann_file', f'{ann_file}: image id {twice[0]} fits several images: {same}')
    return matched
