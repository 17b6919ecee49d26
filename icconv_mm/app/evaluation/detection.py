"""What mmdet's metrics of boxes and masks have compared."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from mmdet.evaluation import CocoMetric, VOCMetric
from mmdet.evaluation.functional import mean_ap
from mmdet.evaluation.metrics import coco_metric, voc_metric
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou

from icconv_mm.app.evaluation.coco import CocoTables, coco_tables, watched_coco
from icconv_mm.app.evaluation.evaluate import LeftOutError, ObservedMetric, Reading
from icconv_mm.app.evaluation.fast_coco import FastCOCOeval, coco_evaluator
from icconv_mm.app.evaluation.results import Evaluation, MetricTable, Record, chosen, surest, worst_of
from icconv_mm_runtime.thresholds import reaches

_APART = 0.1  # IoU with any annotation below which a prediction has none


class _ObservedBoxes(ObservedMetric):
    def fill(self, evaluation: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        first, *others = reading.compared
        records = self._records(evaluation.names, reading)
        evaluation.kind = 'instance' if any('masks' in record.predictions for record in records) else 'detection'
        points = chosen(evaluation, first.matches, given)
        evaluation.curves, evaluation.iou = first.curves, first.iou
        evaluation.confusion = np.zeros((len(evaluation.names) + 1,) * 2, dtype=np.int64)
        sure: list[tuple[float, Record, int]] = []
        for record in records:
            record.score = compare_objects(record, evaluation.used, evaluation.confusion, sure, evaluation.iou)
        evaluation.worst, evaluation.unannotated = worst_of(records), surest(sure)
        for record in evaluation.worst:
            if 'masks' in record.predictions:
                record.truth['masks'] = [first.truth.annToRLE(entry) for entry in record.truth.pop('entries')]
        evaluation.tables = [first.with_thresholds(points), *(other.table for other in others)]


class ObservedCoco(_ObservedBoxes):
    """Reads the evaluations of mmdet's ``CocoMetric`` and of those that are made of it."""

    kinds = (CocoMetric,)

    @contextmanager
    def watched(self) -> Iterator[list]:
        """Yields a list of the evaluations of boxes and masks, which :func:`coco_evaluator` makes in the block."""
        kinds = FastCOCOeval, COCOeval  # metrics of a subclass may make their own
        with patch.object(coco_metric, 'COCOeval', coco_evaluator), watched_coco(*kinds) as seen:
            yield seen

    def read(self, results: list, seen: list) -> list:
        if self.metric.format_only:
            raise LeftOutError('format_only compares nothing')
        names = {'bbox': 'box AP', 'segm': 'mask AP'}
        tables = [
            coco_tables(evaluator, names[evaluator.params.iouType]) for evaluator in seen if evaluator.params.useCats
        ]
        if not tables:
            nothing = not any(len(result['labels']) for _, result in results)
            raise LeftOutError('no object was predicted' if nothing else 'COCOeval was not run by class')
        return tables

    def _records(self, names: Sequence[str], reading: Reading) -> list[Record]:
        """Returns an entry for each image of the annotations, predicted or not."""
        truth = reading.compared[0].truth
        paths = {gt['img_id']: path for (gt, _), (path, _) in zip(reading.results, reading.notes)}
        results = {result['img_id']: result for _, result in reading.results}
        known = {name: label for label, name in enumerate(names)}
        labels = {number: known[cat['name']] for number, cat in truth.cats.items() if cat['name'] in known}
        ids = np.array([labels[number] for number in self.metric.cat_ids])  # the class of a label, as the metric has it
        nothing = {'bboxes': np.zeros((0, 4)), 'scores': np.zeros(0), 'labels': np.zeros(0, int)}
        records = []
        for number in self.metric.img_ids:
            entries = [entry for entry in truth.imgToAnns.get(number, ()) if entry['category_id'] in labels]
            told = {
                'boxes': np.array([entry['bbox'] for entry in entries], dtype=float).reshape(-1, 4) @ _TO_CORNERS,
                'labels': np.array([labels[entry['category_id']] for entry in entries], dtype=int),
                'ignored': np.array([bool(entry.get('iscrowd')) for entry in entries], dtype=bool),
                'entries': entries,
            }
            result = results.get(number, nothing)
            side = {'boxes': result['bboxes'], 'scores': result['scores'], 'labels': ids[result['labels']]}
            side |= {'masks': result['masks']} if 'masks' in result else {}
            image = truth.imgs[number]
            records.append(Record(paths.get(number, ''), (image['height'], image['width']), side, told))
        return records


class ObservedVoc(_ObservedBoxes):
    """Reads the evaluations of mmdet's ``VOCMetric``."""

    kinds = (VOCMetric,)

    @contextmanager
    def watched(self) -> Iterator[list]:
        """Yields a list that gets the results of each call of mmdet's ``eval_map``, by class."""
        seen, eval_map = [], voc_metric.eval_map

        def watching(*args: Any, **options: Any) -> Any:
            result = eval_map(*args, **options)
            seen.append((options['iou_thr'], result[1]))
            return result

        voc_metric.eval_map = watching
        try:
            yield seen
        finally:
            voc_metric.eval_map = eval_map

    def read(self, results: list, seen: list) -> list[CocoTables]:
        if not seen:
            raise LeftOutError(f'metric={self.metric.metric!r} compares no classes')
        names, (level, first) = self.metric.dataset_meta['classes'], seen[0]
        rows = []
        for i, (name, class_values) in enumerate(zip(names, first)):
            values = [float(result[i]['ap']) if class_values['num_gts'] else None for _, result in seen]
            rows.append([name, class_values['num_gts'], *values])
        means = [[value for value in column if value is not None] for column in list(zip(*rows))[2:]]
        every = ['all', sum(row[1] for row in rows), *(float(np.mean(mean)) if mean else None for mean in means)]
        columns = ['class', 'objects', *(f'AP{int(other * 100):02d}' for other, _ in seen)]
        curves = {
            name: np.stack([values['recall'], values['precision']])
            for name, values in zip(names, first)
            if values['num_gts'] and len(values['recall'])
        }
        return [CocoTables('bbox', MetricTable('box AP', columns, [every, *rows]), {}, curves, level, None)]

    def fill(self, evaluation: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        (tables,) = reading.compared
        for label, (name, total, *_) in enumerate(tables.table.rows[1:]):  # once, not after each epoch
            tables.matches[name] = *_voc_matches(reading.results, label, tables.iou), total
        super().fill(evaluation, task, reading, given)

    def number(self, key: str, value: float) -> tuple[str, float]:
        return f'box {key.rpartition("/")[2].replace("mAP", "AP")}', value

    def _records(self, names: Sequence[str], reading: Reading) -> list[Record]:
        records = []
        for (truth, predictions), note in zip(reading.results, reading.notes):
            told = {
                'boxes': np.vstack([truth['bboxes'], truth['bboxes_ignore']]),
                'labels': np.concatenate([truth['labels'], truth['labels_ignore']]),
                'ignored': np.repeat([False, True], [len(truth['labels']), len(truth['labels_ignore'])]),
            }
            boxes = np.vstack(predictions)
            labels = np.repeat(np.arange(len(predictions)), [len(prediction) for prediction in predictions])
            records.append(Record(*note, {'boxes': boxes[:, :4], 'scores': boxes[:, 4], 'labels': labels}, told))
        return records


def _voc_matches(results: Sequence[tuple], label: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of a class's predictions, and whether each is right, by mmdet."""
    truth, predictions = zip(*results)
    images = list(zip(*mean_ap.get_cls_results(predictions, truth, label)))
    pairs = [mean_ap.tpfp_default(*image, level, use_legacy_coordinate=True) for image in images]
    right, wrong = (np.concatenate([pair[i][0] for pair in pairs]) > 0 for i in (0, 1))
    counted = right | wrong  # the others are of ignored objects
    return np.concatenate([boxes[:, -1] for boxes, *_ in images])[counted], right[counted]


_TO_CORNERS = np.array([[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=float)  # of x, y, w, h


def compare_objects(
    record: Record,
    thresholds: Sequence[float],
    confusion: np.ndarray,
    sure: list[tuple[float, Record, int]],
    least: float,
) -> float:
    """Pairs objects and predictions by their boxes, the best scores first, whatever their classes; returns the F1.

    An unpaired prediction with at least half its area in an ignored object (a crowd, VOC's ``difficult``) is ignored,
    as in COCO's evaluation. One that is far from every annotation is added to ``sure``. ``least``: IoU of a pair.
    """
    predictions, truth = record.predictions, record.truth
    ignored = np.asarray(truth['ignored'], dtype=bool)
    labels = np.asarray(truth['labels'], dtype=int)[~ignored]
    limits = np.asarray(thresholds, dtype=float)[np.asarray(predictions['labels'], dtype=int)]
    kept = np.flatnonzero(reaches(predictions['scores'], limits))
    boxes = _xywh(predictions['boxes'])[kept]
    whole = _xywh(truth['boxes'])
    overlaps, inside = (
        iou(boxes, boxes_of_kind, [is_crowd] * len(boxes_of_kind))
        if len(boxes) and len(boxes_of_kind)
        else np.zeros((len(boxes), len(boxes_of_kind)))
        for boxes_of_kind, is_crowd in ((whole[~ignored], 0), (whole[ignored], 1))
    )
    none, right, total = len(confusion) - 1, 0, len(labels)
    free = np.ones(len(labels), dtype=bool)
    for i in np.argsort(-np.asarray(predictions['scores'])[kept], kind='stable'):
        label = int(predictions['labels'][kept[i]])
        best = int(np.where(free, overlaps[i], -1).argmax()) if free.any() else -1
        is_of_none = best < 0 or overlaps[i, best] < least
        if is_of_none and (inside[i] >= 0.5).any():
            continue
        total += 1
        if is_of_none:
            confusion[none, label] += 1
            if max(overlaps[i].max(initial=0), inside[i].max(initial=0)) < _APART:
                sure.append((float(predictions['scores'][kept[i]]), record, int(kept[i])))
            continue
        free[best] = False
        confusion[labels[best], label] += 1
        right += labels[best] == label
    np.add.at(confusion, (labels[free], none), 1)
    return 2 * right / total if total else 1.0


def _xywh(corners: Any) -> np.ndarray:
    corners = np.asarray(corners, dtype=float).reshape(-1, 4)
    return np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
