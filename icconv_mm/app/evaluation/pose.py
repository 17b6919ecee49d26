"""What mmpose's metric has compared."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from mmpose.evaluation.metrics import CocoMetric
from xtcocotools.cocoeval import COCOeval

from icconv_mm.app.evaluation.coco import CocoTables, coco_tables, watched_coco
from icconv_mm.app.evaluation.evaluate import LeftOutError, ObservedMetric, Reading
from icconv_mm.app.evaluation.results import Evaluation, MetricTable, Record, chosen, worst_of

NEAR = 0.1  # of an object's larger side: the distance at which a keypoint counts as found


class ObservedPoses(ObservedMetric):
    """Reads the evaluations of mmpose's ``CocoMetric``, of the poses that its NMS leaves.

    Thresholds are those of the predicted scores, from which drawings choose, whatever ``score_mode`` sorts by.
    """

    kinds = (CocoMetric,)

    def __init__(self, metric: Any) -> None:
        super().__init__(metric)
        self._kept: Mapping[Any, list[dict]] = {}
        self._own_write, metric.results2json = metric.results2json, self._write

    def _write(self, keypoints: Mapping[Any, list[dict]], *args: Any, **options: Any) -> Any:
        self._kept = keypoints
        return self._own_write(keypoints, *args, **options)

    def watched(self) -> AbstractContextManager[list]:
        return watched_coco(COCOeval)

    def read(self, results: list, seen: list) -> tuple[CocoTables, Mapping[Any, list[dict]]]:
        if not seen:
            raise LeftOutError('format_only compares nothing')
        people, kept = [person for people in self._kept.values() for person in people], self._kept
        entries = seen[0].cocoDt.dataset['annotations']
        scores = {entry['id']: float(one['bbox_score']) for entry, one in zip(entries, people, strict=True)}
        self._kept = {}
        return coco_tables(seen[0], 'keypoint AP (OKS)', scores), kept

    def number(self, key: str, value: float) -> tuple[str, float] | None:
        number = super().number(key, value)
        start, slash, name = number[0].rpartition('/') if number else ('', '', '')
        return number and (f'{start}{slash}keypoint {name}', value)

    def fill(self, evaluation: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        readings, kept = reading.compared
        overall, *rows = readings.table.rows
        if len(rows) == 1:  # one class, whose name the file may have otherwise
            name = evaluation.names[0]
            readings.matches = dict(zip([name], readings.matches.values()))
            readings.curves = dict(zip([name], readings.curves.values()))
            readings.table.rows = [overall, [name, *overall[1:]]]
        people = readings.with_thresholds(chosen(evaluation, readings.matches, given))
        people.rows = people.rows[len(rows) == 1 :]
        evaluation.curves, evaluation.iou = readings.curves, readings.iou
        evaluation.tables = [people]
        if self.metric.gt_converter is None and self.metric.pred_converter is None:
            _add_keypoints(evaluation, task['keypoints'], _records(reading, kept, readings.truth))
        else:
            evaluation.left_out = (
                'The table of keypoints and images are left out: CocoMetric compares converted keypoints.'
            )


def _records(reading: Reading, kept: Mapping[Any, list[dict]], truth: Any) -> list[Record]:
    """Returns an entry for each image, with its annotated people and those that the metric compared."""
    notes = {pred['img_id']: note for (pred, _), note in zip(reading.results, reading.notes)}
    records = []
    for number, note in notes.items():
        told = [annotation for annotation in truth.imgToAnns.get(number, ()) if annotation.get('keypoints')]
        triples = np.array([annotation['keypoints'] for annotation in told], dtype=float)
        triples = triples.reshape(len(told), -1, 3) if told else np.zeros((0, 0, 3))
        boxes = np.array([annotation['bbox'] for annotation in told], dtype=float).reshape(-1, 4)
        people = kept.get(number, ())
        keypoints = (
            np.array([one['keypoints'] for one in people]).reshape(len(people), -1, 3)
            if people
            else np.zeros((0, 0, 3))
        )
        sides = (
            {
                'keypoints': keypoints[..., :2],
                'keypoint_scores': keypoints[..., 2],
                'scores': np.array([one['bbox_score'] for one in people], dtype=float),
            },
            {
                'keypoints': triples[..., :2],
                'visible': triples[..., 2],
                'boxes': np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
                'ignored': np.array([bool(annotation.get('iscrowd')) for annotation in told], dtype=bool),
            },
        )
        records.append(Record(*note, *sides))
    return records


def _add_keypoints(evaluation: Evaluation, names: Sequence[str], records: Sequence[Record]) -> None:
    """Adds the table of keypoints, the share of those that are near, and the worst images."""
    errors: list[list[float]] = [[] for _ in names]
    near = np.zeros((len(errors), 2), dtype=int)  # found, annotated
    for record in records:
        record.score = compare_people(record, errors, near)
    rows = []
    for k, name in enumerate(names):
        share = float(near[k, 0] / near[k, 1]) if near[k, 1] else None
        median = float(np.median(errors[k])) if errors[k] else None
        rows.append([name, int(near[k, 1]), share, None if median is None else f'{median:.1f} px'])
    seen = [distance for distances in errors for distance in distances]
    total = near.sum(0)
    evaluation.overall[f'PCK@{NEAR:g}'] = float(total[0] / total[1]) if total[1] else None
    columns = ['keypoint', 'annotated', f'PCK@{NEAR:g}', 'median error']
    median = f'{np.median(seen):.1f} px' if seen else None
    rows.insert(0, ['all', int(total[1]), evaluation.overall[f'PCK@{NEAR:g}'], median])
    evaluation.tables.append(MetricTable("keypoints; near is 10 % of an object's larger side", columns, rows))
    evaluation.worst = worst_of(records)


def compare_people(record: Record, errors: list[list[float]], near: np.ndarray) -> float:
    """Returns the fraction of annotated keypoints that are near those of the best prediction for their person."""
    truth, predictions = record.truth, np.asarray(record.predictions['keypoints'], dtype=float)
    hits = total = 0
    for points, visible, box, is_ignored in zip(*(truth[key] for key in ('keypoints', 'visible', 'boxes', 'ignored'))):
        seen = np.flatnonzero(np.asarray(visible) > 0)
        if is_ignored or not len(seen):
            continue
        total += len(seen)
        near[seen, 1] += 1
        if not len(predictions):
            continue
        distances = np.linalg.norm(predictions[:, seen] - np.asarray(points)[seen], axis=2)
        best = distances[distances.mean(1).argmin()]
        is_near = best < NEAR * max(box[2] - box[0], box[3] - box[1])
        near[seen[is_near], 0] += 1
        hits += int(is_near.sum())
        for k, distance in zip(seen, best):
            errors[k].append(float(distance))
    return hits / total if total else 1.0
