"""What mmpretrain's metrics of one label an image have compared."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmpretrain.evaluation import Accuracy, SingleLabelMetric

from icconv_mm.app.evaluation.evaluate import LeftOutError, ObservedMetric, Reading
from icconv_mm.app.evaluation.results import Evaluation, MetricTable, Record, surest, worst_of


class ObservedLabels(ObservedMetric):
    """Reads the evaluations of mmpretrain's ``Accuracy`` and ``SingleLabelMetric``."""

    kinds = (Accuracy, SingleLabelMetric)
    scale = 100.0

    def notes(self, samples: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [(sample.get('img_path') or '', tuple(sample.get('ori_shape') or (1, 1))[:2]) for sample in samples]

    def read(self, results: list, seen: list) -> None:
        if not any(limit is None or limit == 0 for limit in self.metric.thrs):
            raise LeftOutError('with thrs, the class with the best score may be none')
        if any('pred_score' not in result or len(result['gt_label']) != 1 for result in results):
            raise LeftOutError('there is no score of each class, or not one label an image')

    def number(self, key: str, value: float) -> tuple[str, float] | None:
        return super().number(key, value) and (key.replace('accuracy/top1', 'accuracy', 1), value / self.scale)

    def fill(self, evaluation: Evaluation, task: Mapping[str, Any], reading: Reading, given: Sequence | None) -> None:
        count = len(evaluation.names)
        evaluation.confusion = np.zeros((count, count), dtype=np.int64)
        records, wrong = [], []
        for result, (path, shape) in zip(reading.results, reading.notes):
            scores, label = result['pred_score'].float().numpy(), int(result['gt_label'])
            best = int(scores.argmax())
            evaluation.confusion[label, best] += 1
            records.append(Record(path, shape, {'scores': scores}, {'label': label}, float(scores[label])))
            if best != label:
                wrong.append((float(scores[best]), records[-1], best))
        counts = evaluation.confusion
        right, told, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
        rows = []
        for label, name in enumerate(evaluation.names):
            values = [(right, predicted), (right, told), (2 * right, told + predicted)]
            shares = [float(part[label] / whole[label]) if whole[label] else None for part, whole in values]
            rows.append([name, int(told[label]), *shares])
        evaluation.worst, evaluation.unannotated = worst_of(records), surest(wrong)
        evaluation.tables = [MetricTable('accuracy', ['class', 'images', 'precision', 'recall', 'F1'], rows)]
