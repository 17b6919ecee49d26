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
        image_ids: COCO id of each image.
        category_ids: COCO ids of the classes, by label.
        tracker: Numbers the objects of a video, which are then drawn with their numbers.
    """

    name: str
    description: Mapping[str, Any]
    image_ids: Mapping[Path, int]
    category_ids: Sequence[int]
    tracker: Tracker | None = None

    @property
    def kind(self) -> str:
        """Kind of the predictions, as in the metadata of an exported file."""
        return self.description['kind']

    def records(self, image_id: int, result: Result, score_thr: float) -> list[dict]:
        """Returns the entries of a COCO results file for an image, or for the next frame of a video."""
        arrays = result.tasks[self.name]
        if self.tracker is not None:
            arrays['tracks'] = self.tracker.update(arrays)
        # a network whose classes have no names has no categories either
        ids, shape = self.category_ids or None, result.ori_shape
        return coco_records(self.description, arrays, image_id, score_thr, ids, shape)

    def drawn(self, image_id: int, result: Result, score_thr: float | None) -> list[dict]:
        """Returns the entries of the objects that are drawn."""
        every = replace(self, tracker=None).records(image_id, result, 0.0)
        return [every[k] for k in sorted(shown(self.description, result.tasks[self.name], score_thr))]


def entry_of(image_id: int, name: str, result: Result) -> dict[str, Any]:
    """Returns the entry of an image in a COCO file."""
    height, width = result.ori_shape
    return {'id': image_id, 'file_name': name, 'width': width, 'height': height}


def write_parts(out: Path, parts: Sequence[TaskResults], rows: Callable[[], Iterable[dict]]) -> dict[str, Path]:
    """Writes the results of all tasks, and the images and categories that they refer to; returns the files by name."""
    ids = {part.name: part.category_ids for part in parts}
    with naming(str(out), OSError):
        return write_results(out, {part.name: part.description for part in parts}, rows, ids)


def results_of(
    descriptions: Mapping[str, Mapping[str, Any]], paths: Sequence[Path], ann_file: str | None
) -> list[TaskResults]:
    """Returns empty results for each task of a network, with the COCO ids of images and categories.

    The ids are those of the COCO annotation file ``ann_file``; None numbers them.

    Raises:
        InputError: The annotation file cannot be used, or does not fit the images.
    """
    return [
        TaskResults(name, description, *_ids(paths, description['classes'], ann_file))
        for name, description in descriptions.items()
    ]


def tracked(parts: Sequence[TaskResults], rate: float, score_thr: float | None) -> list[TaskResults]:
    """Returns the results of a video with trackers for the tasks with boxes.

    Args:
        parts: Empty results.
        rate: Frames per second.
        score_thr: Lowest score of an object that begins a track; by default that of each drawn class.

    Raises:
        ArgumentError: No task has boxes. MissingLibraryError: The library trackers is not installed.
    """
    kinds = [part.kind for part in parts]
    if not set(_TRACKED_KINDS) & set(kinds):
        raise ArgumentError('track', f'a network for {", ".join(kinds)} has no boxes to track')
    return [
        replace(part, tracker=Tracker(part.description, rate, score_thr)) if part.kind in _TRACKED_KINDS else part
        for part in parts
    ]


def _ids(paths: Sequence[Path], classes: Sequence[str], ann_file: str | None) -> tuple[dict[Path, int], list[int]]:
    """Returns the ids of images and, by label, of categories: numbered from 1, or those of an annotation file."""
    if ann_file is None:
        return {path: i for i, path in enumerate(paths, start=1)}, list(range(1, len(classes) + 1))
    require_file(ann_file, 'ann_file')
    content = check_coco_file(ann_file)
    known = {category['name']: category['id'] for category in content['categories']}
    unused = max(known.values(), default=0) + 1
    absent = [name for name in classes if name not in known]
    if absent:
        print_log(f'{ann_file} has no categories {absent}; they get ids from {unused}', 'current', logging.WARNING)
    numbered = {name: unused + i for i, name in enumerate(absent)}
    return match_images(paths, content['images'], ann_file), [{**numbered, **known}[name] for name in classes]


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
        entries = [each for each in named if as_path(each['file_name']).parts in ends]
        if len(entries) != 1:
            found = f'{len(entries)} images' if entries else 'no image'
            other = f', only {named[0]["file_name"]!r}' if named and not entries else ''
            raise ArgumentError('ann_file', f'{ann_file}: {found} {path.name!r} for {path}{other}')
        matched[path] = entries[0]['id']
    twice = [id for id, count in Counter(matched.values()).items() if count > 1]
    if twice:
        same = ', '.join(str(path) for path, id in matched.items() if id == twice[0])
        raise ArgumentError('ann_file', f'{ann_file}: image id {twice[0]} fits several images: {same}')
    return matched
