"""What mmseg's metric has compared."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmseg.evaluation import IoUMetric
from torch import Tensor

from icconv_mm.app.evaluation.evaluate import LeftOutError, ObservedMetric, Reading
from icconv_mm.app.evaluation.results import WORST, Evaluation, MetricTable, Record

_NAMES = {'Acc': 'accuracy', 'Fscore': 'F score', 'Precision': 'precision', 'Recall': 'recall'}


@dataclass
class _Image:
    """Pixels of each pair of classes: annotated, predicted and their number, [n, 3]; the maps of the worst images."""

    path: str
    pairs: np.ndarray
    score: float
    maps: tuple[np.ndarray, np.ndarray] | None = None


class ObservedIoU(ObservedMetric):
    """Reads the evaluations of mmseg's ``IoUMetric``: what it compares, with its own ``ignore_index``."""

    kinds = (IoUMetric,)
    scale = 100.0

    def __init__(self, metric: Any) -> None:
        super().__init__(metric)
        self._counted: list[_Image] = []
        self._worst: list[_Image] = []
        self._own_count, metric.intersect_and_union = metric.intersect_and_union, self._count

    def begin(self) -> None:
        self._counted, self._worst = [], []

    def _count(self, pred_label: Tensor, label: Tensor, num_classes: int, ignore_index: int) -> tuple[Tensor, ...]:
        beyond = num_classes**2  # of pixels that are ignored, or of no class
        is_counted = (label != ignore_index) & (label < num_classes) & (pred_label < num_classes)
        pairs = (label * num_classes + pred_label).where(is_counted, beyond)
        counts = torch.bincount(pairs.flatten(), minlength=beyond + 1)[:beyond]
        counts = counts.reshape(num_classes, num_classes).cpu().numpy()
        there = np.argwhere(counts)
        total = int(counts.sum())
        image = _Image('', np.column_stack([there, counts[counts > 0]]), int(counts.trace()) / total if total else 1.0)
        self._counted.append(image)
        self._keep_maps(image, pred_label, label.where(label != ignore_index, 255))
        return self._own_count(pred_label, label, num_classes, ignore_index)

    def _keep_maps(self, image: _Image, pred_label: Tensor, label: Tensor) -> None:
        """Keeps the maps of the worst images alone: those of a whole dataset would fill the memory."""
        self._worst.append(image)
        kept = heapq.nsmallest(WORST, self._worst, key=lambda image: image.score)
        if any(kept_image is image for kept_image in kept) and label.ndim == 2:  # mmseg squeezes a map of one row
            image.maps = label.cpu().numpy(), pred_label.cpu().numpy()
        for kept_image in self._worst:
            if not any(kept_image is other for other in kept):
                kept_image.maps = None
        self._worst = kept

    def notes(self, samples: Sequence[Mapping[str, Any]]) -> list[Any]:
        counted, self._counted = self._counted, []
        for sample, image in zip(samples, counted):
            image.path = sample.get('img_path') or ''
        return counted

    def read(self, results: list, seen: list) -> dict[str, np.ndarray]:
        """Returns IoU and the other measures of each class as the metric computes them from its own results."""
        if self.metric.format_only:
            raise LeftOutError('format_only compares nothing')
        areas = [sum(areas) for areas in zip(*results)]
        metric = self.metric
        values = metric.total_area_to_metrics(*areas, metric.metrics, metric.nan_to_num, metric.beta)
        values.pop('aAcc')
        return {'of the pixels': (areas[3] / areas[3].sum().clamp(min=1)).numpy(), **values}

    def fill(self, evaluation: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        count = len(evaluation.names)
        evaluation.confusion = np.zeros((count, count), dtype=np.int64)
        for image in reading.notes:
            np.add.at(evaluation.confusion, (image.pairs[:, 0], image.pairs[:, 1]), image.pairs[:, 2])
        rows = [[name, *map(_value, values)] for name, *values in zip(evaluation.names, *reading.compared.values())]
        means = [reading.numbers.get(f'm{key}') for key in list(reading.compared)[1:]]
        rows.insert(0, ['all', 1.0, *(None if mean is None else _value(mean / self.scale) for mean in means)])
        columns = ['class', *(_NAMES.get(key, key) for key in reading.compared)]
        evaluation.tables = [MetricTable(columns[2], columns, rows)]
        worst = heapq.nsmallest(WORST, (note for note in reading.notes if note.maps), key=lambda pair: pair.score)
        for image in worst:
            truth, prediction = image.maps
            evaluation.worst.append(
                Record(image.path, truth.shape, {'seg_map': prediction}, {'seg_map': truth}, image.score)
            )


def _value(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
