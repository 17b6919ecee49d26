"""What mmdet's metrics of boxes and masks have compared."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric, VOCMetric
from mmdet.evaluation.functional import mean_ap
from mmdet.evaluation.metrics import voc_metric
from pycocotools.cocoeval import COCOeval
from pycocotools.mask import iou

from icconv_mm.app.evaluation.coco import CocoTables, coco_tables, watched_coco
from icconv_mm.app.evaluation.evaluate import LeftOutError, ObservedMetric, Reading
from icconv_mm.app.evaluation.results import Evaluation, MetricTable, Record, chosen, surest, worst_of
from icconv_mm_runtime.thresholds import reaches

_APART = 0.1  # IoU with any annotation below which a prediction has none


class _ObservedBoxes(ObservedMetric):
    def fill(self, made: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        first, *others = reading.own
        records = self._records(made.names, reading)
        made.kind = 'instance' if any('masks' in record.found for record in records) else 'detection'
        points = chosen(made, first.matches, given)
        made.curves, made.iou = first.curves, first.iou
        made.confusion = np.zeros((len(made.names) + 1,) * 2, dtype=np.int64)
        sure: list[tuple[float, Record, int]] = []
        for record in records:
            record.score = compare_objects(record, made.used, made.confusion, sure, made.iou)
        made.worst, made.unannotated = worst_of(records), surest(sure)
        for record in made.worst:
            if 'masks' in record.found:
                record.truth['masks'] = [first.truth.annToRLE(each) for each in record.truth.pop('entries')]
        made.tables = [first.with_thresholds(points), *(each.table for each in others)]


class ObservedCoco(_ObservedBoxes):
    """Reads the evaluations of mmdet's ``CocoMetric`` and of those that are made of it."""

    kinds = (CocoMetric,)

    def watched(self) -> AbstractContextManager[list]:
        return watched_coco(COCOeval)

    def read(self, results: list, seen: list) -> list:
        if self.metric.format_only:
            raise LeftOutError('format_only compares nothing')
        names = {'bbox': 'box AP', 'segm': 'mask AP'}
        own = [coco_tables(each, names[each.params.iouType]) for each in seen if each.params.useCats]
        if not own:
            nothing = not any(len(result['labels']) for _, result in results)
            raise LeftOutError('no object was predicted' if nothing else 'COCOeval was not run by class')
        return own

    def _records(self, names: Sequence[str], reading: Reading) -> list[Record]:
        """Returns an entry for each image of the annotations, predicted or not."""
        truth = reading.own[0].truth
        paths = {gt['img_id']: path for (gt, _), (path, _) in zip(reading.results, reading.notes)}
        found = {result['img_id']: result for _, result in reading.results}
        labels = {number: names.index(each['name']) for number, each in truth.cats.items() if each['name'] in names}
        own = np.array([labels[number] for number in self.metric.cat_ids])  # the class of a label, as the metric has it
        records = []
        for number in self.metric.img_ids:
            entries = [each for each in truth.imgToAnns.get(number, ()) if each['category_id'] in labels]
            told = {
                'boxes': np.array([each['bbox'] for each in entries], dtype=float).reshape(-1, 4) @ _TO_CORNERS,
                'labels': np.array([labels[each['category_id']] for each in entries], dtype=int),
                'ignored': np.array([bool(each.get('iscrowd')) for each in entries], dtype=bool),
                'entries': entries,
            }
            result = found.get(number, {'bboxes': np.zeros((0, 4)), 'scores': np.zeros(0), 'labels': np.zeros(0, int)})
            side = {'boxes': result['bboxes'], 'scores': result['scores'], 'labels': own[result['labels']]}
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
        seen, own = [], voc_metric.eval_map

        def watching(*args: Any, **options: Any) -> Any:
            found = own(*args, **options)
            seen.append((options['iou_thr'], found[1]))
            return found

        voc_metric.eval_map = watching
        try:
            yield seen
        finally:
            voc_metric.eval_map = own

    def read(self, results: list, seen: list) -> list[CocoTables]:
        if not seen:
            raise LeftOutError(f'metric={self.metric.metric!r} compares no classes')
        names, (level, first) = self.metric.dataset_meta['classes'], seen[0]
        rows = []
        for i, (name, own) in enumerate(zip(names, first)):
            values = [float(found[i]['ap']) if own['num_gts'] else None for _, found in seen]
            rows.append([name, own['num_gts'], *values])
        means = [[value for value in column if value is not None] for column in list(zip(*rows))[2:]]
        every = ['all', sum(row[1] for row in rows), *(float(np.mean(each)) if each else None for each in means)]
        columns = ['class', 'objects', *(f'AP{int(other * 100):02d}' for other, _ in seen)]
        curves = {
            name: np.stack([own['recall'], own['precision']])
            for name, own in zip(names, first)
            if own['num_gts'] and len(own['recall'])
        }
        return [CocoTables('bbox', MetricTable('box AP', columns, [every, *rows]), {}, curves, level, None)]

    def fill(self, made: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        (own,) = reading.own
        for label, (name, total, *_) in enumerate(own.table.rows[1:]):  # once, not after each epoch
            own.matches[name] = *_voc_matches(reading.results, label, own.iou), total
        super().fill(made, task, reading, given)

    def number(self, key: str, value: float) -> tuple[str, float]:
        return f'box {key.rpartition("/")[2].replace("mAP", "AP")}', value

    def _records(self, names: Sequence[str], reading: Reading) -> list[Record]:
        records = []
        for (truth, found), note in zip(reading.results, reading.notes):
            told = {
                'boxes': np.vstack([truth['bboxes'], truth['bboxes_ignore']]),
                'labels': np.concatenate([truth['labels'], truth['labels_ignore']]),
                'ignored': np.repeat([False, True], [len(truth['labels']), len(truth['labels_ignore'])]),
            }
            boxes = np.vstack(found)
            labels = np.repeat(np.arange(len(found)), [len(each) for each in found])
            records.append(Record(*note, {'boxes': boxes[:, :4], 'scores': boxes[:, 4], 'labels': labels}, told))
        return records


def _voc_matches(results: Sequence[tuple], label: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the scores of a class's predictions, and whether each is right, by mmdet."""
    truth, found = zip(*results)
    images = list(zip(*mean_ap.get_cls_results(found, truth, label)))
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
    found, truth = record.found, record.truth
    ignored = np.asarray(truth['ignored'], dtype=bool)
    labels = np.asarray(truth['labels'], dtype=int)[~ignored]
    limits = np.asarray(thresholds)[np.asarray(found['labels'], dtype=int)] if len(found['labels']) else np.zeros(0)
    kept = np.flatnonzero(reaches(found['scores'], limits))
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
        is_of_none = best < 0 or overlaps[i, best] < least
        if is_of_none and (inside[i] >= 0.5).any():
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
