"""What a library's metric has measured, by class and image: tables, curves, confusions, best thresholds.

The numbers are the metric's own. What it does not return is taken from what it has compared, with its own options.
"""

import contextlib
import copy
import heapq
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from icconv_mm.errors import message_of, printable
from icconv_mm_runtime.thresholds import DEFAULT_SCORE

WORST = 6  # images that are shown
UNANNOTATED = 12  # predictions without an annotation that are shown
# names that mmdet and mmpose give to metrics, and those of the field
_METRICS = (
    (re.compile(r'bbox_mAP(?:_(50|75|s|m|l))?'), r'box AP\1'),
    (re.compile(r'segm_mAP(?:_(50|75|s|m|l))?'), r'mask AP\1'),
    (re.compile(r'AP \.5'), 'AP50'),
    (re.compile(r'AP \.75'), 'AP75'),
    (re.compile(r'(.+)_precision'), r'AP of \1'),
)
# those that are fractions, or in %
_FRACTIONS = re.compile(
    r'(bbox|segm)_mAP.*|.+_precision|A[PR].*|mAP|recall@.*|top\d.*|(precision|recall|f1-score).*'
    r'|[am](Acc|IoU|Dice|Fscore|Precision|Recall)'
)


def metric_name(key: str) -> str:
    """Returns a logged metric's usual name: ``coco/bbox_mAP_50`` is box AP50, ``coco/RBC_precision`` is AP of RBC."""
    task, slash, name = key.replace('coco/', '', 1).rpartition('/')
    own = next((pattern.sub(usual, name) for pattern, usual in _METRICS if pattern.fullmatch(name)), name)
    return f'{task}{slash}{own}'


@dataclass
class Record:
    """Predictions and annotations of an image, in its pixels; masks are COCO's RLE.

    Attributes:
        path: The image; empty if the metric's samples do not name it.
        size: Its height and width.
        found: Predictions, with the names of :mod:`icconv_mm_runtime.results`.
        truth: Annotations: ``boxes``, ``labels``, ``ignored``, ``masks``; ``keypoints`` [n, K, 2] and ``visible``
            [n, K]; ``seg_map``; ``label``.
        score: Fraction that is right.
    """

    path: str
    size: tuple[int, int]
    found: dict[str, Any]
    truth: dict[str, Any]
    score: float = 0.0


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
        overall: Numbers of the metrics that are known to be fractions, the first of which counts.
        others: Numbers of other metrics, as they are.
        tables: Tables, a line for each class or keypoint.
        thresholds: Score of each class with the largest F1; None for a class without any; empty where scores do not
            select predictions.
        used: Thresholds of the confusion matrix and the images.
        iou: Least IoU, or OKS, of a prediction with its object, in the confusion matrix and for thresholds.
        curves: Recall and precision of each class, [2, n].
        confusion: How often a class (row) was predicted as another (column); for objects with one more row and column:
            missed objects, and predictions without an object. None for poses.
        worst: Images with the lowest scores.
        unannotated: Images and indices of the surest predictions without an annotation, or, for whole images, the
            surest wrong ones.
        left_out: What there is not, and why.
    """

    kind: str
    names: list[str]
    images: int
    overall: dict[str, float | None] = field(default_factory=dict)
    others: dict[str, float | None] = field(default_factory=dict)
    tables: list[MetricTable] = field(default_factory=list)
    thresholds: list[float | None] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    iou: float = 0.5
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    confusion: np.ndarray | None = None
    worst: list[Record] = field(default_factory=list)
    unannotated: list[tuple[Record, int]] = field(default_factory=list)
    left_out: str = ''

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
            'other_metrics': self.others,
            'thresholds': self.thresholds,
            'tables': [{'title': each.title, 'columns': each.columns, 'rows': each.rows} for each in self.tables],
            'confusion': None if self.confusion is None else self.confusion.tolist(),
        }


class LeftOutError(Exception):
    """A metric, or an option of it, compares nothing that tables by class could be made of."""


@dataclass
class Reading:
    """An evaluation of a metric: the numbers it returned, its results and a note for each, and what they were made of.

    Attributes:
        fault: Why there is nothing but numbers; None if there is.
    """

    numbers: Mapping[str, Any]
    results: list[Any]
    notes: list[Any]
    own: Any = None
    fault: str | None = None


class ObservedMetric:
    """Keeps what a library's metric compares and returns; the metric's own results and numbers stay as they are.

    Each result carries a note about its image through the metric's collecting, over processes as well.

    Args:
        metric: The metric, whose methods ``process`` and ``compute_metrics`` are wrapped.

    Attributes:
        kinds: Classes of metrics that it observes.
        scale: What the metric's numbers have for 1.
        latest: The last evaluation, in the main process.
    """

    kinds: tuple[type, ...] = ()
    scale = 1.0

    def __init__(self, metric: Any) -> None:
        self.metric = metric
        self.latest: Reading | None = None
        self._own_process, self._own_compute = metric.process, metric.compute_metrics
        metric.process, metric.compute_metrics = self._process, self._compute

    @classmethod
    def observes(cls, metric: Any) -> bool:
        """Returns whether a metric is of a known class, and none that handles results in its own way."""
        own = type(metric)
        return any(
            isinstance(metric, kind) and own.process is kind.process and own.evaluate is kind.evaluate
            for kind in cls.kinds
        )

    def begin(self) -> None:
        """Is called before the first image of an evaluation."""

    def _process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        before = len(self.metric.results)
        self._own_process(data_batch, data_samples)
        added = self.metric.results[before:]
        with contextlib.suppress(LookupError, TypeError):  # samples of a stranger's pipeline: there is no image
            notes = self.notes(data_samples)
            if len(notes) == len(added):
                self.metric.results[before:] = zip(added, notes)
                return
        self.metric.results[before:] = [(each, None) for each in added]

    def _compute(self, results: list) -> dict:
        kept, notes = ([pair[i] for pair in results] for i in (0, 1))
        with self.watched() as seen:
            numbers = self._own_compute(kept)
        self.latest = Reading(numbers, kept, notes)
        try:
            self.latest.own = self.read(kept, seen)
        except LeftOutError as error:
            self.latest.fault = str(error)
        except Exception as error:  # the evaluation does not fail for the report
            self.latest.fault = first_line_of(error)
        return numbers

    def notes(self, samples: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Returns what is kept of each sample beside the metric's own result: by default path and size of the image."""
        return [(sample.get('img_path') or '', tuple(sample['ori_shape'][:2])) for sample in samples]

    def watched(self) -> contextlib.AbstractContextManager[list]:
        """Yields a list that gets what the metric makes while it computes."""
        return contextlib.nullcontext([])

    def read(self, results: list, seen: list) -> Any:
        """Returns what an evaluation keeps of that; raises LeftOutError if there are no tables by class."""

    def number(self, key: str, value: float) -> tuple[str, float] | None:
        """Returns the usual name and the fraction of a number by its key; None if it is none of the library's."""
        return (metric_name(key), value / self.scale) if _FRACTIONS.fullmatch(key.rpartition('/')[2]) else None

    def fill(self, made: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        """Adds tables, thresholds, confusions and images; ``given``: thresholds chosen on other images."""
        raise NotImplementedError


def first_line_of(error: Exception) -> str:
    """Returns the first line of an error, with its type."""
    return f'{type(error).__name__}: {printable((message_of(error).splitlines() or [""])[0]):.200}'


def evaluation_of(
    task: Mapping[str, Any],
    readings: Sequence[tuple[ObservedMetric, Reading]],
    numbers: Mapping[str, Any],
    images: int,
    given: Sequence[float | None] | None = None,
) -> Evaluation:
    """Returns an evaluation of a task.

    Args:
        task: Its ``kind`` and ``classes``; of poses also ``keypoints``, the names.
        readings: Its observed metrics, and what they have measured. The first that has tables gives them.
        numbers: What all metrics of the task returned.
        images: Number of images.
        given: Thresholds of each class that were chosen on other images; by default those with the largest F1 on
            these.
    """
    made = Evaluation(task['kind'], list(task['classes']), images)
    for key, value in numbers.items():
        if not isinstance(value, bool) and np.ndim(value) == 0 and not isinstance(value, (str, bytes, type(None))):
            _add_number(made, readings, key, float(value))
    made.overall = dict(sorted(made.overall.items(), key=lambda item: item[0].endswith('aAcc')))  # it counts least
    reasons = []
    for observed, reading in readings:
        try:
            if reading.fault is not None:
                raise LeftOutError(reading.fault)
            if any(note is None for note in reading.notes):
                raise LeftOutError('its samples do not tell the size of their image')
            filled = replace(made, overall=dict(made.overall))
            observed.fill(filled, task, reading, given)
            return filled
        except LeftOutError as error:
            reasons.append(f'{type(observed.metric).__name__}: {error}')
        except Exception as error:  # results of a library's other tasks have other fields
            reasons.append(f'{type(observed.metric).__name__}: {first_line_of(error)}')
    reason = '; '.join(reasons) or 'no metric of the config is one that tells what it has compared'
    made.left_out = f'Tables by class, thresholds and images are left out: {reason}.'
    return made


def _add_number(made: Evaluation, readings: Sequence[tuple[ObservedMetric, Reading]], key: str, value: float) -> None:
    for observed, reading in readings:
        own = next((own for own in reading.numbers if key == own or key.endswith(f'/{own}')), None)
        if own is not None and (named := observed.number(key, value)) is not None:
            made.overall[named[0]] = named[1] if math.isfinite(value) and value >= 0 else None  # COCO's -1: no objects
            return
    made.others[key] = value if math.isfinite(value) else None


# --- COCO's evaluation, which mmdet and mmpose run ---


@contextlib.contextmanager
def watched_coco(kind: type) -> Iterator[list]:
    """Yields a list that gets each evaluation of a COCOeval class that is accumulated meanwhile."""
    seen: list = []
    accumulate = kind.accumulate

    def watching(self: Any, *args: Any, **options: Any) -> Any:
        seen.append(self)
        return accumulate(self, *args, **options)

    kind.accumulate = watching
    try:
        yield seen
    finally:
        kind.accumulate = accumulate


@dataclass
class CocoTables:
    """What an evaluation of COCO's has found.

    Attributes:
        kind: ``bbox``, ``segm``, ``keypoints``, ...
        table: AP by class and size; the first line is of all classes.
        matches: By class: scores of the predictions, whether each is right at the first IoU, and the number of objects.
        curves: Recall and interpolated precision at the first IoU of each class with objects.
        iou: The first IoU.
        truth: The annotations.
    """

    kind: str
    table: MetricTable
    matches: dict[str, tuple[np.ndarray, np.ndarray, int]]
    curves: dict[str, np.ndarray]
    iou: float
    truth: Any

    def with_thresholds(self, points: Mapping[str, Sequence[float] | None]) -> MetricTable:
        """Returns the table with the threshold of each class and what it gives, of :func:`best_threshold`."""
        columns = [*self.table.columns, 'threshold', 'precision', 'recall', 'F1']
        first, *rows = self.table.rows
        filled = [[*first, *[None] * 4], *([*row, *(points.get(row[0]) or [None] * 4)] for row in rows)]
        return MetricTable(self.table.title, columns, filled)


def coco_tables(own: Any, title: str, scores: Mapping[int, float] | None = None) -> CocoTables:
    """Returns the results of a COCOeval that has accumulated and summarized.

    Args:
        own: It.
        title: Title of the table.
        scores: Scores of the predictions by id, if thresholds are not of those that the evaluation sorts by.
    """
    params = own.params
    names = [own.cocoGt.cats[number]['name'] for number in params.catIds]
    precision = own.eval['precision'][..., -1]  # IoU, recall, class, area; mmdet's values of classes are of the last
    which = [np.isclose(params.iouThrs, level) for level in (0.5, 0.75)]
    areas = range(1, precision.shape[3])
    columns = ['class', 'objects', 'AP', 'AP50', 'AP75', *(f'AP {params.areaRngLbl[area]}' for area in areas)]
    unmatched = -1 if type(own).__module__.startswith('xtcocotools') else 0
    matches = {name: _matches(found, scores, unmatched) for name, found in zip(names, _matched(own))}
    stats = list(own.stats[: 3 if own.params.iouType == 'keypoints_crowd' else len(columns) - 2])  # its own are others
    stats += [-1] * (len(columns) - 2 - len(stats))
    rows = [
        [
            'all',
            sum(total for *_, total in matches.values()),
            *(float(value) if value > -1 else None for value in stats),
        ]
    ]
    for k, name in enumerate(names):
        values = precision[:, :, k]
        chosen = [values[..., 0], *(values[each][..., 0] for each in which), *(values[..., area] for area in areas)]
        rows.append([name, matches[name][2], *map(_mean, chosen)])
    first = precision[0, :, :, 0]
    curves = {name: np.stack([params.recThrs, first[:, k]]) for k, name in enumerate(names) if first[0, k] > -1}
    table = MetricTable(title, columns, rows)
    return CocoTables(params.iouType, table, matches, curves, float(params.iouThrs[0]), own.cocoGt)


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _matched(own: Any) -> list[list[dict]]:
    """Returns the matches of each class and image, of all predictions.

    An evaluation drops those beyond its last ``maxDets``, 20 people, say. Images with more are matched again.
    """
    params = own.params
    count, areas, most = len(params.imgIds), len(params.areaRng), params.maxDets[-1]
    starts = range(0, len(params.catIds) * areas * count, areas * count)
    found = [[each for each in own.evalImgs[start : start + count] if each is not None] for start in starts]
    cut = sorted({each['image_id'] for images in found for each in images if len(each['dtScores']) >= most})
    if cut:
        again = copy.copy(own)
        again.params = copy.deepcopy(params)
        again.params.imgIds, again.params.areaRng = cut, params.areaRng[:1]
        again.params.iouThrs = params.iouThrs[:1]
        again.params.maxDets = [max(most, *(len(own.cocoDt.imgToAnns[number]) for number in cut))]
        with contextlib.redirect_stdout(io.StringIO()):
            again.evaluate()
        for k, images in enumerate(found):
            whole = again.evalImgs[k * len(cut) : (k + 1) * len(cut)]
            images[:] = [each for each in images if each['image_id'] not in cut] + [e for e in whole if e is not None]
    return found


def _matches(
    found: Sequence[dict], scores: Mapping[int, float] | None, unmatched: int
) -> tuple[np.ndarray, np.ndarray, int]:
    if not found:
        return np.zeros(0), np.zeros(0, bool), 0
    own = [[scores[i] for i in each['dtIds']] for each in found] if scores else [each['dtScores'] for each in found]
    hits = np.concatenate([each['dtMatches'][0] > unmatched for each in found])
    counted = ~np.concatenate([np.asarray(each['dtIgnore'][0], dtype=bool) for each in found])
    total = int(sum((np.asarray(each['gtIgnore']) == 0).sum() for each in found))
    return np.concatenate(own)[counted], hits[counted], total


def chosen(made: Evaluation, matches: Mapping[str, tuple], given: Sequence | None) -> dict[str, list[float] | None]:
    """Sets the thresholds of each class by its matches, and returns what :func:`best_threshold` does."""
    points = {name: best_threshold(*own) for name, own in matches.items()}
    made.thresholds = [own and own[0] for own in (points.get(name) for name in made.names)]
    made.used = [DEFAULT_SCORE if each is None else each for each in given or made.thresholds]
    return points


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


def worst_of(records: Sequence[Record]) -> list[Record]:
    """Returns the images with the lowest scores."""
    return heapq.nsmallest(WORST, records, key=lambda each: each.score)


def surest(found: Sequence[tuple[float, Record, int]]) -> list[tuple[Record, int]]:
    """Returns the images and indices of the predictions with the highest scores."""
    return [(record, i) for _, record, i in heapq.nlargest(UNANNOTATED, found, key=lambda each: each[0])]
