"""What reads the metrics of each task library for the report."""

from typing import Any

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.evaluation.evaluate import ObservedMetric
from icconv_mm.tasks.multitask import TaskMetric


def observer_of(adapter: TaskAdapter, metric: Any) -> tuple[str, ObservedMetric | None]:
    """Returns a metric's task ('' for a single one), and the metric if the report can read what it compares."""
    if isinstance(metric, TaskMetric):
        part = getattr(adapter, 'tasks', {}).get(metric.task)
        return ('', None) if part is None else (metric.task, observer_of(part, metric.metric)[1])
    return '', next((kind(metric) for kind in _kinds(adapter.library) if kind.observes(metric)), None)


def _kinds(library: str) -> tuple[type[ObservedMetric], ...]:
    if library == 'mmdet':
        from icconv_mm.app.evaluation.detection import ObservedCoco, ObservedVoc

        return ObservedCoco, ObservedVoc
    if library == 'mmseg':
        from icconv_mm.app.evaluation.semantic import ObservedIoU

        return (ObservedIoU,)
    if library == 'mmpose':
        from icconv_mm.app.evaluation.pose import ObservedPoses

        return (ObservedPoses,)
    if library == 'mmpretrain':
        from icconv_mm.app.evaluation.classification import ObservedLabels

        return (ObservedLabels,)
    return ()
