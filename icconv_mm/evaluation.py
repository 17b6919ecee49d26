"""Evaluates predictions of any task against annotations: tables by class, curves, confusions, best thresholds."""

import contextlib
import heapq
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from icconv_mm_runtime.coco import encode_rle
from icconv_mm_runtime.results import Predictions
from icconv_mm_runtime.thresholds import DEFAULT_SCORE

REPORT = 'report.json'  # in the folder of a run: its results, with the thresholds
IOU = 0.5  # least IoU, or OKS, of a prediction with its object, in the confusion matrix and for thresholds
NEAR = 0.1  # of an object's larger side: the distance at which a keypoint counts as found
WORST = 6  # images that are shown
UNANNOTATED = 12  # predictions without an annotation that are shown
_APART = 0.1  # IoU with any annotation below which a prediction has none


@dataclass
class Record:
    """Predictions and annotations of an image, in its pixels; masks are COCO's RLE.

    Attributes:
        path: The image.
        size: Its height and width.
        found: Predictions, with the names of :mod:`icconv_mm_runtime.results`.
        truth: Annotations: ``boxes``, ``labels``, ``ignored``, ``areas``, ``masks``; ``keypoints`` [n, K, 2] and
            ``visible`` [n, K]; ``seg_map``; ``label``.
        score: Fraction that is right.
        pixels: Truth, prediction and number of pixels of each pair of classes, [n, 3], of a segmentation map.
    """

    path: str
    size: tuple[int, int]
    found: dict[str, Any]
    truth: dict[str, Any]
    score: float = 0.0
    pixels: np.ndarray | None = None


@dataclass
class MetricTable:
    """A table; fractions are floats, counts are integers, and None is a value that does not exist."""

    title: str
    columns: list[str]
    rows: list[list[Any]]


@dataclass
class Evaluation:
    """Results of a task on annotated images.

    Attributes:
        kind: Kind of the task.
        names: Class names.
        images: Number of images.
        overall: Metrics of all classes, the first of which counts.
        tables: Tables, a line for each class or keypoint.
        thresholds: Score of each class with the largest F1; None for a class without any; empty where scores do not
            select predictions.
        used: Thresholds of the confusion matrix and the images.
        curves: Recall and precision of each class, [2, n].
        confusion: How often a class (row) was predicted as another (column); for objects with one more row and column:
            missed objects, and predictions without an object. None for poses.
        worst: Images with the lowest scores.
        unannotated: Images and indices of the surest predictions without an annotation, or, for whole images, the
            surest wrong ones.
    """

    kind: str
    names: list[str]
    images: int
    overall: dict[str, float | None] = field(default_factory=dict)
    tables: list[MetricTable] = field(default_factory=list)
    thresholds: list[float | None] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    worst: list[Record] = field(default_factory=list)
    unannotated: list[tuple[Record, int]] = field(default_factory=list)

    @property
    def labels(self) -> list[str]:
        """Returns the names of all rows and columns of the confusion matrix."""
        return [*self.names, 'no object'][: 0 if self.confusion is None else len(self.confusion)]

    def as_json(self) -> dict[str, Any]:
        """Returns the numbers, as plain data."""
        return {
            'kind': self.kind,
            'classes': self.names,
            'images': self.images,
            'metrics': self.overall,
            'thresholds': self.thresholds,
            'tables': [{'title': each.title, 'columns': each.columns, 'rows': each.rows} for each in self.tables],
            'confusion': None if self.confusion is None else self.confusion.tolist(),
        }


def record_of(path: str, size: Sequence[int], found: Predictions, truth: Mapping[str, Any]) -> Record:
    """Returns a compact record of an image; that of a segmentation map has its pixels counted already."""
    record = Record(path, tuple(map(int, size)), dict(found), dict(truth))
    if 'seg_map' in truth:
        record.pixels = _pairs(truth['seg_map'], found['seg_map'])
        total = record.pixels[:, 2].sum()
        right = record.pixels[record.pixels[:, 0] == record.pixels[:, 1], 2].sum()
        record.score = float(right / total) if total else 1.0
    if 'masks' in record.found:
        record.found['masks'] = [encode_rle(mask, record.size) for mask in record.found['masks']]
    return record


def _pairs(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    truth, found = truth.astype(np.int64), found.astype(np.int64)
    if found.shape != truth.shape:  # a large image, which is read reduced
        found = cv2.resize(found.astype(np.int32), truth.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.int64)
    known = truth != 255
    pairs, counts = np.unique(truth[known] * 65536 + found[known], return_counts=True)
    return np.column_stack([pairs // 65536, pairs % 65536, counts])


def without_surplus_maps(records: Sequence[Record]) -> None:
    """Drops the segmentation maps of all records but the worst: those of a whole dataset would fill the memory."""
    maps = [each for each in records if 'seg_map' in each.truth]
    kept = {id(each) for each in heapq.nsmallest(WORST, maps, key=lambda each: each.score)}
    for each in maps:
        if id(each) not in kept:
            each.found, each.truth = {}, {}


def evaluate(
    task: Mapping[str, Any], records: Sequence[Record], thresholds: Sequence[float | None] | None = None
) -> Evaluation:
    """Evaluates the predictions of a task.

    Args:
        task: Its ``kind`` and ``classes``; of poses also ``keypoints``, the names, and ``sigmas``.
        records: The images.
        thresholds: Thresholds of each class that were chosen on other images; by default those with the largest F1 on
            these.
    """
    kind = task['kind']
    kind = 'instance' if kind == 'detection' and any('masks' in each.found for each in records) else kind
    made = Evaluation(kind, list(task['classes']), len(records))
    _EVALUATE[kind](made, task, records, thresholds)
    made.worst = heapq.nsmallest(WORST, records, key=lambda each: each.score)
    return made


# --- boxes, masks and poses, by COCO's evaluation ---


def _objects(made: Evaluation, task: Mapping[str, Any], records: Sequence[Record], given: Any) -> None:
    matched = _coco(records, made.names, 'bbox')
    made.thresholds, points = _thresholds(matched, made.names)
    made.used = [DEFAULT_SCORE if each is None else each for each in given or made.thresholds]
    for kind, name in (('bbox', 'box'), ('segm', 'mask')) if made.kind == 'instance' else (('bbox', 'box'),):
        own = matched if kind == 'bbox' else _coco(records, made.names, kind)
        made.tables.append(_table(own, made.names, f'{name} AP', points if kind == 'bbox' else None))
        made.overall |= dict(zip((f'{name} AP', f'{name} AP50', f'{name} AP75'), made.tables[-1].rows[0][2:5]))
    made.curves = _curves(matched, made.names)
    made.confusion = np.zeros((len(made.names) + 1,) * 2, dtype=np.int64)
    sure: list[tuple[float, Record, int]] = []
    for record in records:
        record.score = _compare_objects(record, made.used, made.confusion, sure)
    made.unannotated = [(record, i) for _, record, i in heapq.nlargest(UNANNOTATED, sure, key=lambda each: each[0])]


def _coco(records: Sequence[Record], names: Sequence[str], kind: str, sigmas: Sequence[float] = ()) -> Any:
    """Returns COCO's evaluation of boxes, masks or keypoints, accumulated.

    AP, at the first of ``maxDets``, counts as many predictions of an image and a class as COCO does; the matches, which
    thresholds come from, are of all.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{'id': i, 'height': each.size[0], 'width': each.size[1]} for i, each in enumerate(records, 1)]
    categories = [{'id': label, 'name': name} for label, name in enumerate(names, 1)]
    sides = []
    for is_truth in (True, False):
        entries: list[dict] = []
        for number, record in enumerate(records, 1):
            for entry in _entries(record.truth if is_truth else record.found, kind):
                entries.append({'id': len(entries) + 1, 'image_id': number, **entry})
        sides.append(COCO())
        sides[-1].dataset = {'images': images, 'categories': categories, 'annotations': entries}
    with contextlib.redirect_stdout(io.StringIO()):
        for side in sides:
            side.createIndex()
        matched = COCOeval(*sides, kind)
        if len(sigmas):
            matched.params.kpt_oks_sigmas = np.asarray(sigmas, dtype=float)
        most = max((len(each.found.get('scores', ())) for each in records), default=0)
        matched.params.maxDets = [matched.params.maxDets[-1], max(matched.params.maxDets[-1], most)]
        matched.evaluate()
        matched.accumulate()
    return matched


def _entries(side: Mapping[str, Any], kind: str) -> list[dict]:
    """Returns the objects of an image as COCO's entries."""
    if kind == 'keypoints':
        return _people(side)
    entries = []
    for i, (x1, y1, x2, y2) in enumerate(np.asarray(side.get('boxes', ()), dtype=float).reshape(-1, 4).tolist()):
        entry = {'category_id': int(side['labels'][i]) + 1, 'bbox': [x1, y1, x2 - x1, y2 - y1], 'iscrowd': 0}
        entry['area'] = (x2 - x1) * (y2 - y1)
        if 'areas' in side:
            entry['area'], entry['iscrowd'] = float(side['areas'][i]), int(side['ignored'][i])
        else:
            entry['score'] = float(side['scores'][i])
        if kind == 'segm':
            if 'masks' not in side:
                continue
            entry['segmentation'] = side['masks'][i]
            if 'areas' not in side:
                from pycocotools.mask import area

                entry['area'] = float(area(side['masks'][i]))
        entries.append(entry)
    return entries


def _people(side: Mapping[str, Any]) -> list[dict]:
    entries = []
    for i, points in enumerate(side.get('keypoints', ())):
        visible = side['visible'][i] if 'visible' in side else np.full(len(points), 2)
        low, high = points.min(0), points.max(0)
        box = side['boxes'][i] if 'boxes' in side else (*low, *high)
        entry = {'category_id': 1, 'iscrowd': 0, 'keypoints': np.column_stack([points, visible]).ravel().tolist()}
        entry['bbox'] = [float(each) for each in (box[0], box[1], box[2] - box[0], box[3] - box[1])]
        entry['area'] = float(side['areas'][i]) if 'areas' in side else entry['bbox'][2] * entry['bbox'][3]
        if 'visible' in side:
            entry |= {'num_keypoints': int((visible > 0).sum()), 'iscrowd': int(side['ignored'][i])}
        else:
            entry['score'] = float(side['scores'][i])
        entries.append(entry)
    return entries


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _table(matched: Any, names: Sequence[str], title: str, points: Sequence[Any] | None) -> MetricTable:
    """Returns AP by class and size; with ``points`` also the threshold of each class, and what it gives."""
    precision = matched.eval['precision'][..., 0]  # IoU, recall, class, area
    levels = matched.params.iouThrs
    which = [np.isclose(levels, level) for level in (0.5, 0.75)]
    areas = range(1, precision.shape[3])
    columns = ['class', 'objects', 'AP', 'AP50', 'AP75', *(f'AP {matched.params.areaRngLbl[area]}' for area in areas)]
    objects = (each for each in matched.cocoGt.dataset['annotations'] if not each['iscrowd'])
    told = [each['category_id'] for each in objects if each.get('num_keypoints') != 0]
    counts = [told.count(label) for label in range(1, len(names) + 1)]
    rows = []
    for label in (None, *range(len(names))):
        own = precision[:, :, slice(None) if label is None else [label]]
        values = [own[..., 0], *(own[each][..., 0] for each in which), *(own[..., area] for area in areas)]
        name, count = ('all', sum(counts)) if label is None else (names[label], counts[label])
        rows.append([name, count, *map(_mean, values)])
        if points is not None:
            rows[-1] += [None] * 4 if label is None or points[label] is None else points[label]
    return MetricTable(
        title, columns + (['threshold', 'precision', 'recall', 'F1'] if points is not None else []), rows
    )


def _matches(matched: Any, label: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns the scores of a class's predictions, whether each is right at the IoU 0.5, and the number of objects."""
    images, areas = len(matched.params.imgIds), len(matched.params.areaRng)
    start = label * areas * images
    found = [each for each in matched.evalImgs[start : start + images] if each is not None]
    if not found:
        return np.zeros(0), np.zeros(0, bool), 0
    scores = np.concatenate([each['dtScores'] for each in found])
    hits = np.concatenate([each['dtMatches'][0] > 0 for each in found])
    counted = ~np.concatenate([each['dtIgnore'][0].astype(bool) for each in found])
    return scores[counted], hits[counted], int(sum((np.asarray(each['gtIgnore']) == 0).sum() for each in found))


def _thresholds(matched: Any, names: Sequence[str]) -> tuple[list[float | None], list[Any]]:
    points = [best_threshold(*_matches(matched, label)) for label in range(len(names))]
    return [each and each[0] for each in points], points


def best_threshold(scores: np.ndarray, hits: np.ndarray, total: int) -> list[float] | None:
    """Returns the threshold with the largest F1, and its precision, recall and F1; None if nothing is right.

    The threshold lies halfway to the next lower score, as it is used on other images.

    Args:
        scores: Scores of the predictions.
        hits: Whether each is right.
        total: Number of objects.
    """
    if not total or not hits.any():
        return None
    order = np.argsort(-scores, kind='stable')
    scores, right = scores[order], np.cumsum(hits[order])
    last = np.flatnonzero(np.append(scores[1:] < scores[:-1], True))  # of equal scores, all count or none
    f1 = 2 * right[last] / (last + 1 + total)
    best = int(last[f1.argmax()])
    below = scores[best + 1] if best + 1 < len(scores) else 0.0
    middle = round(float(scores[best] + below) / 2, 4)
    threshold = middle if below < middle <= scores[best] else float(scores[best])
    return [threshold, float(right[best] / (best + 1)), float(right[best] / total), float(f1.max())]


def _curves(matched: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns recall and interpolated precision at the IoU 0.5 of each class with objects."""
    precision = matched.eval['precision'][0, :, :, 0, 0]
    recall = matched.params.recThrs
    return {
        name: np.stack([recall, precision[:, label]]) for label, name in enumerate(names) if precision[0, label] > -1
    }


def _compare_objects(
    record: Record, thresholds: Sequence[float], confusion: np.ndarray, sure: list[tuple[float, Record, int]]
) -> float:
    """Pairs objects and predictions by their boxes, the best scores first, whatever their classes.

    An unpaired prediction with at least half its area in an ignored object (a crowd, VOC's ``difficult``) is ignored,
    as in COCO's evaluation. One that is far from every annotation is added to ``sure``.
    """
    from pycocotools.mask import iou

    found, truth = record.found, record.truth
    ignored = np.asarray(truth['ignored'], dtype=bool)
    labels = np.asarray(truth['labels'], dtype=int)[~ignored]
    limits = np.asarray(thresholds)[np.asarray(found['labels'], dtype=int)] if len(found['labels']) else np.zeros(0)
    kept = np.flatnonzero(np.asarray(found['scores']) >= limits)
    own = _xywh(found['boxes'])[kept]
    whole = _xywh(truth['boxes'])
    overlaps, inside = (
        iou(own, each, [is_crowd] * len(each)) if len(own) and len(each) else np.zeros((len(own), len(each)))
        for each, is_crowd in ((whole[~ignored], 0), (whole[ignored], 1))
    )
    none, right, total = len(confusion) - 1, 0, len(labels)
    free = np.ones(len(labels), dtype=bool)
    for i in np.argsort(-np.asarray(found['scores'])[kept], kind='stable'):
        label = int(found['labels'][kept[i]])
        best = int(np.where(free, overlaps[i], -1).argmax()) if free.any() else -1
        is_of_none = best < 0 or overlaps[i, best] < IOU
        if is_of_none and (inside[i] >= IOU).any():
            continue
        total += 1
        if is_of_none:
            confusion[none, label] += 1
            if max(overlaps[i].max(initial=0), inside[i].max(initial=0)) < _APART:
                sure.append((float(found['scores'][kept[i]]), record, int(kept[i])))
            continue
        free[best] = False
        confusion[labels[best], label] += 1
        right += labels[best] == label
    np.add.at(confusion, (labels[free], none), 1)
    return 2 * right / total if total else 1.0


def _xywh(corners: Any) -> np.ndarray:
    corners = np.asarray(corners, dtype=float).reshape(-1, 4)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])


def _poses(made: Evaluation, task: Mapping[str, Any], records: Sequence[Record], given: Any) -> None:
    matched = _coco(records, made.names[:1], 'keypoints', task.get('sigmas') or ())
    made.thresholds, points = _thresholds(matched, made.names[:1])
    made.used = [DEFAULT_SCORE if each is None else each for each in given or made.thresholds]
    people = _table(matched, made.names[:1], 'keypoint AP (OKS)', points)
    people.rows = people.rows[1:]  # one class
    made.overall = dict(zip(('keypoint AP', 'keypoint AP50', 'keypoint AP75'), people.rows[0][2:5]))
    made.curves = _curves(matched, made.names[:1])
    errors: list[list[float]] = [[] for _ in task['keypoints']]
    near = np.zeros((len(errors), 2), dtype=int)  # found, annotated
    for record in records:
        record.score = _compare_people(record, errors, near)
    rows = []
    for k, name in enumerate(task['keypoints']):
        share = float(near[k, 0] / near[k, 1]) if near[k, 1] else None
        median = float(np.median(errors[k])) if errors[k] else None
        rows.append([name, int(near[k, 1]), share, None if median is None else f'{median:.1f} px'])
    seen = [each for own in errors for each in own]
    total = near.sum(0)
    made.overall[f'PCK@{NEAR:g}'] = float(total[0] / total[1]) if total[1] else None
    columns = ['keypoint', 'annotated', f'PCK@{NEAR:g}', 'median error']
    median = f'{np.median(seen):.1f} px' if seen else None
    rows.insert(0, ['all', int(total[1]), made.overall[f'PCK@{NEAR:g}'], median])
    made.tables = [people, MetricTable("keypoints; near is 10 % of an object's larger side", columns, rows)]


def _compare_people(record: Record, errors: list[list[float]], near: np.ndarray) -> float:
    """Returns the fraction of annotated keypoints that are near those of the best prediction for their person."""
    truth, found = record.truth, np.asarray(record.found['keypoints'], dtype=float)
    hits = total = 0
    for points, visible, box, is_ignored in zip(
        *(truth[each] for each in ('keypoints', 'visible', 'boxes', 'ignored'))
    ):
        seen = np.flatnonzero(np.asarray(visible) > 0)
        if is_ignored or not len(seen):
            continue
        total += len(seen)
        near[seen, 1] += 1
        if not len(found):
            continue
        distances = np.linalg.norm(found[:, seen] - np.asarray(points)[seen], axis=2)
        best = distances[distances.mean(1).argmin()]
        is_near = best < NEAR * max(box[2] - box[0], box[3] - box[1])
        near[seen[is_near], 0] += 1
        hits += int(is_near.sum())
        for k, distance in zip(seen, best):
            errors[k].append(float(distance))
    return hits / total if total else 1.0


# --- segmentation maps and whole images ---


def _maps(made: Evaluation, task: Mapping[str, Any], records: Sequence[Record], given: Any) -> None:
    count = len(made.names)
    made.confusion = np.zeros((count, count), dtype=np.int64)
    for record in records:
        pairs = record.pixels[(record.pixels[:, :2] < count).all(1)]
        np.add.at(made.confusion, (pairs[:, 0], pairs[:, 1]), pairs[:, 2])
    right, told, found = made.confusion.diagonal(), made.confusion.sum(1), made.confusion.sum(0)
    either = told + found - right
    rows = []
    for label, name in enumerate(made.names):
        iou = float(right[label] / either[label]) if either[label] else None
        accuracy = float(right[label] / told[label]) if told[label] else None
        rows.append([name, float(told[label] / max(told.sum(), 1)), iou, accuracy])
    columns = ['class', 'of the pixels', 'IoU', 'accuracy']
    ious, accuracies = ([row[i] for row in rows if row[i] is not None] for i in (2, 3))
    made.overall = {
        'mIoU': float(np.mean(ious)) if ious else None,
        'mAcc': float(np.mean(accuracies)) if accuracies else None,
        'aAcc': float(right.sum() / told.sum()) if told.any() else None,
    }
    made.tables = [MetricTable('IoU', columns, [['all', 1.0, made.overall['mIoU'], made.overall['mAcc']], *rows])]


def _classes(made: Evaluation, task: Mapping[str, Any], records: Sequence[Record], given: Any) -> None:
    count = len(made.names)
    made.confusion = np.zeros((count, count), dtype=np.int64)
    wrong: list[tuple[float, Record, int]] = []
    for record in records:
        scores, label = record.found['scores'], int(record.truth['label'])
        best = int(scores.argmax())
        made.confusion[label, best] += 1
        record.score = float(scores[label])
        if best != label:
            wrong.append((float(scores[best]), record, best))
    right, told, found = made.confusion.diagonal(), made.confusion.sum(1), made.confusion.sum(0)
    rows = []
    for label, name in enumerate(made.names):
        precision = float(right[label] / found[label]) if found[label] else None
        recall = float(right[label] / told[label]) if told[label] else None
        f1 = float(2 * right[label] / (told[label] + found[label])) if told[label] + found[label] else None
        rows.append([name, int(told[label]), precision, recall, f1])
    made.overall = {'accuracy': float(right.sum() / told.sum()) if told.any() else None}
    made.tables = [MetricTable('accuracy', ['class', 'images', 'precision', 'recall', 'F1'], rows)]
    made.unannotated = [(record, i) for _, record, i in heapq.nlargest(UNANNOTATED, wrong, key=lambda each: each[0])]


_EVALUATE = {
    'detection': _objects,
    'instance': _objects,
    'semantic': _maps,
    'pose': _poses,
    'classification': _classes,
}


def stored_thresholds(checkpoint: str, task: str, names: Sequence[str]) -> list[float | None] | None:
    """Returns the thresholds of a task in the report beside a checkpoint; None without any for these classes."""
    path = Path(checkpoint).parent / REPORT
    with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
        own = json.loads(path.read_bytes())['tasks'][task]
        found = [None if each is None else float(each) for each in own['thresholds']]
        is_valid = all(each is None or 0 <= each <= 1 for each in found)
        if found and own['classes'] == list(names) and len(found) == len(names) and is_valid:
            return found
    return None
