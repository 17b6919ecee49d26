"""What a library's metric has measured, by class and image: tables, curves, confusions, best thresholds.

The numbers are the metric's own. What it does not return is taken from what it has compared, with its own options.
"""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icconv_mm.app.evaluation.results import Evaluation
from icconv_mm.errors import message_of, printable

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
    match = next((pattern.sub(usual, name) for pattern, usual in _METRICS if pattern.fullmatch(name)), name)
    return f'{task}{slash}{match}'


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
    compared: Any = None
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
        metric_kind = type(metric)
        return any(
            isinstance(metric, kind) and metric_kind.process is kind.process and metric_kind.evaluate is kind.evaluate
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
        self.metric.results[before:] = [(item, None) for item in added]

    def _compute(self, results: list) -> dict:
        kept, notes = ([pair[i] for pair in results] for i in (0, 1))
        with self.watched() as seen:
            numbers = self._own_compute(kept)
        self.latest = Reading(numbers, kept, notes)
        try:
            self.latest.compared = self.read(kept, seen)
        except LeftOutError as error:
            self.latest.fault = str(error)
        except Exception as error:  # the evaluation does not fail for the report
            self.latest.fault = first_line_of(error)
        return numbers

    def notes(self, samples: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Returns what is kept of each sample beside the metric's own result: path and shape of the image."""
        return [(sample.get('img_path') or '', tuple(sample['ori_shape'][:2])) for sample in samples]

    def watched(self) -> contextlib.AbstractContextManager[list]:
        """Yields a list that gets what the metric makes while it computes."""
        return contextlib.nullcontext([])

    def read(self, results: list, seen: list) -> Any:
        """Returns what an evaluation keeps of that; raises LeftOutError if there are no tables by class."""

    def number(self, key: str, value: float) -> tuple[str, float] | None:
        """Returns the usual name and the fraction of a number by its key; None if it is none of the library's."""
        return (metric_name(key), value / self.scale) if _FRACTIONS.fullmatch(key.rpartition('/')[2]) else None

    def fill(self, evaluation: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
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
    evaluation = Evaluation(task['kind'], list(task['classes']), images)
    for key, value in numbers.items():
        if not isinstance(value, bool) and np.ndim(value) == 0 and not isinstance(value, (str, bytes, type(None))):
            _add_number(evaluation, readings, key, float(value))
    overall = sorted(evaluation.overall.items(), key=lambda item: item[0].endswith('aAcc'))  # it counts least
    evaluation.overall = dict(overall)
    reasons = []
    for observed, reading in readings:
        try:
            if reading.fault is not None:
                raise LeftOutError(reading.fault)
            if any(note is None for note in reading.notes):
                raise LeftOutError('its samples do not tell the size of their image')
            filled = replace(evaluation, overall=dict(evaluation.overall))
            observed.fill(filled, task, reading, given)
            return filled
        except LeftOutError as error:
            reasons.append(f'{type(observed.metric).__name__}: {error}')
        except Exception as error:  # results of a library's other tasks have other fields
            reasons.append(f'{type(observed.metric).__name__}: {first_line_of(error)}')
    reason = '; '.join(reasons) or 'no metric of the config is one that tells what it has compared'
    evaluation.left_out = f'Tables by class, thresholds and images are left out: {reason}.'
    return evaluation


def _add_number(
    evaluation: Evaluation, readings: Sequence[tuple[ObservedMetric, Reading]], key: str, value: float
) -> None:
    for observed, reading in readings:
        name = next((name for name in reading.numbers if key == name or key.endswith(f'/{name}')), None)
        if name is not None and (named := observed.number(key, value)) is not None:
            is_measured = math.isfinite(value) and value >= 0  # COCO's -1: no objects
            evaluation.overall[named[0]] = named[1] if is_measured else None
            return
    evaluation.others[key] = value if math.isfinite(value) else None
