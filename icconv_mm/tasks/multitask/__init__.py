"""One network for several tasks: its model, data and evaluation.

No module here imports a task library: the types in a config name the required ones.
"""

from icconv_mm.tasks.multitask.data import (
    MultiTaskConcatDataset,
    MultiTaskDataPreprocessor,
    MultiTaskDataset,
    TaskMetric,
)
from icconv_mm.tasks.multitask.model import MultiTaskModel, MultiTaskSample, SharedFeatures
from icconv_mm.tasks.multitask.transforms import LoadTaskAnnotations, PackTaskInputs, WarpPeople

__all__ = [
    'LoadTaskAnnotations', 'MultiTaskConcatDataset', 'MultiTaskDataPreprocessor', 'MultiTaskDataset', 'MultiTaskModel',
    'MultiTaskSample', 'PackTaskInputs', 'SharedFeatures', 'TaskMetric', 'WarpPeople',
]  # fmt: skip
