"""Results of an evaluation: numbers, tables, curves, confusions, images, and the thresholds that follow from them."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from icconv_mm_runtime.thresholds import DEFAULT_SCORE

WORST = 6  # images that are shown
UNANNOTATED = 12  # predictions without an annotation that are shown


@dataclass
class Record:
    """Predictions and annotations of an image, in its pixels; masks are COCO's RLE.

    Attributes:
        path: The image; empty if the metric's samples do not name it.
        shape: Its height and width.
        predictions: Predictions, with the names of :mod:`icconv_mm_runtime.results`.
        truth: Annotations: ``boxes``, ``labels``, ``ignored``, ``masks``; ``keypoints`` [n, K, 2] and ``visible``
            [n, K]; ``seg_map``; ``label``.
        score: Fraction that is right.
    """

    path: str
    shape: tuple[int, int]
    predictions: dict[str, Any]
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
            'tables': [{'title': table.title, 'columns': table.columns, 'rows': table.rows} for table in self.tables],
            'confusion': None if self.confusion is None else self.confusion.tolist(),
        }


def chosen(
    evaluation: Evaluation, matches: Mapping[str, tuple], given: Sequence | None
) -> dict[str, list[float] | None]:
    """Sets the thresholds of each class by its matches, and returns what :func:`best_threshold` does."""
    points = {name: best_threshold(*match) for name, match in matches.items()}
    evaluation.thresholds = [match and match[0] for match in (points.get(name) for name in evaluation.names)]
    evaluation.used = [
        DEFAULT_SCORE if threshold is None else threshold for threshold in given or evaluation.thresholds
    ]
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
    return heapq.nsmallest(WORST, records, key=lambda row: row.score)


def surest(items: Sequence[tuple[float, Record, int]]) -> list[tuple[Record, int]]:
    """Returns the images and indices of the predictions with the highest scores."""
    return [(record, i) for _, record, i in heapq.nlargest(UNANNOTATED, items, key=lambda row: row[0])]
