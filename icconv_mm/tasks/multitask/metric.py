"""The metric of one task among several."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS as ROOT_METRICS

from icconv_mm.registry import METRICS
from icconv_mm.tasks.libraries import registered_class


@METRICS.register_module()
class TaskMetric(BaseMetric):
    """A library's own metric on the samples of a task, with the task's class names; its values get ``TASK/`` in front.

    Args:
        task: Name of the task.
        metric: Config of the metric, such as ``dict(type='mmdet.CocoMetric', ann_file=...)``.
    """

    def __init__(self, task: str, metric: Mapping[str, Any]) -> None:
        super().__init__(prefix=task)
        registered_class(ROOT_METRICS, metric.get('type'), f'metric of {task}')
        self.task = task
        self.metric = ROOT_METRICS.build(metric)

    @property
    def dataset_meta(self) -> dict | None:
        """What the dataset says of the task."""
        return self.metric.dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, dict]) -> None:
        self.metric.dataset_meta = meta.get(self.task)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Hand on the samples that have the task."""
        own = [sample[self.task] for sample in data_samples if self.task in sample]
        if own:
            self.metric.process(data_batch, own)

    def evaluate(self, size: int) -> dict:
        """The metric's values of ``size`` images at most."""
        return {f'{self.task}/{key}': value for key, value in self.metric.evaluate(size).items()}

    def compute_metrics(self, results: list) -> dict:
        """Values of the metric of the task, by name."""
        return self.metric.compute_metrics(results)
