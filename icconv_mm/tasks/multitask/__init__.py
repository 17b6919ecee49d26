"""One network for several tasks: its model, data and evaluation.

Nothing here imports a task library: the types in a config name what is needed.
"""

from icconv_mm.tasks.multitask.data_preprocessor import MultiTaskDataPreprocessor
from icconv_mm.tasks.multitask.dataset import MultiTaskConcatDataset, MultiTaskDataset
from icconv_mm.tasks.multitask.metric import TaskMetric
from icconv_mm.tasks.multitask.model import MultiTaskModel
from icconv_mm.tasks.multitask.sample import MultiTaskSample
from icconv_mm.tasks.multitask.sharing import SharedFeatures
from icconv_mm.tasks.multitask.transforms import LoadTaskAnnotations, PackTaskInputs, WarpPeople
from icconv_mm.tasks.multitask.visualizer import MultiTaskVisualizer

__all__ = [
    'LoadTaskAnnotations', 'MultiTaskConcatDataset', 'MultiTaskDataPreprocessor', 'MultiTaskDataset', 'MultiTaskModel',
    'MultiTaskSample', 'MultiTaskVisualizer', 'PackTaskInputs', 'SharedFeatures', 'TaskMetric', 'WarpPeople',
]  # fmt: skip
