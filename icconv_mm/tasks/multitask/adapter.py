"""The tools' view of one network for several tasks: each task is left to the adapter of its library."""

from collections.abc import Mapping
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from mmengine.visualization import Visualizer

from icconv_mm.checkpoints.metadata import dataset_meta_of, mapping, meta_of
from icconv_mm.datasets.nesting import leaf_datasets, phase_datasets
from icconv_mm.registry import scoped
from icconv_mm.tasks.base import NotSupportedError, TaskAdapter, metainfo_of
from icconv_mm.tasks.libraries import adapter_of, library_of, registered_class
from icconv_mm.tasks.multitask.checks import check_model
from icconv_mm.tasks.multitask.model import MultiTaskModel
from icconv_mm.tasks.multitask.sample import LABELS_OF_FILE
from icconv_mm.tasks.multitask.visualizer import MultiTaskVisualizer
from icconv_mm.utils.config_tree import kind_of


class Adapter(TaskAdapter):
    """Networks of :class:`MultiTaskModel`.

    Args:
        cfg: The config of one.
    """

    library = 'mmengine'  # its configs name the library of every type
    autocast_modules = ('backbone', 'neck')  # the heads of mmdet call kernels that take float32 only
    visualization_hook = dict(type='mmdet.DetVisualizationHook', draw=True)
    shown_dir = 'test_out_dir'

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        self.tasks: dict[str, TaskAdapter] = {}
        for name, task in cfg['model']['tasks'].items():
            if isinstance(task, Mapping):
                library = library_of(registered_class(MODELS, task.get('type'), f'model.tasks.{name}.type'))
                self.tasks[name] = adapter_of(library) if library else TaskAdapter()

    # --- tests ---

    def enable_tta(self, cfg: Config) -> None:
        """Poses at the scales of the published test, each with the mirrored image; the other tasks as they are."""
        enabled = [self.tasks[name].enable_scales(task) for name, task in cfg.model.tasks.items()]
        if not any(enabled):
            needed = 'an icconv_mm.AEPoseEstimator in model.tasks'
            raise NotSupportedError('tta', f'{cfg.filename}: expected {needed}, found 0')

    # --- datasets ---

    def check_dataset(self, dataset: Any, where: str) -> None:
        if library := library_of(type(dataset)):
            adapter_of(library).check_dataset(dataset, where)

    def check_model(self, model: Any, dataset: Any, where: str, training: bool) -> None:
        if isinstance(model, MultiTaskModel):
            check_model(model, dataset, where, training)

    def is_coco(self, dataset_type: str) -> bool:
        library = library_of(registered_class(DATASETS, dataset_type, 'dataset'))
        return bool(library) and adapter_of(library).is_coco(dataset_type)

    # --- inference ---

    def dataset_meta(self, checkpoint: Any, cfg: Config) -> dict:
        meta: dict[str, dict] = {}
        for name, own in mapping(meta_of(checkpoint).get('dataset_meta') or {}, 'meta.dataset_meta').items():
            if name in self.tasks:
                meta[name] = dataset_meta_of({'meta': {'dataset_meta': own}})
        for place, dataset in phase_datasets(cfg, 'test', 'val', 'train'):
            for where, leaf in leaf_datasets(dataset, place):
                name, kind = where.rpartition('.')[2], registered_class(DATASETS, leaf.get('type'), where)
                if name in self.tasks:
                    meta.setdefault(name, metainfo_of(kind, leaf))
        return meta

    def parts(self, dataset_meta: dict) -> dict[str, tuple[TaskAdapter, dict]]:
        return {name: (adapter, dataset_meta.get(name, {})) for name, adapter in self.tasks.items()}

    def class_names(self, dataset_meta: dict) -> tuple[str, ...]:
        """The classes of all tasks, each once."""
        names = (adapter.class_names(meta) for adapter, meta in self.parts(dataset_meta).values())
        return tuple(dict.fromkeys(name for own in names for name in own))

    def model_input(self, path: str, dataset_meta: dict) -> dict:
        labels = {name: adapter.model_input(path, meta) for name, (adapter, meta) in self.parts(dataset_meta).items()}
        return {'img_path': path, 'img_id': 0, 'labels': labels}

    def visualizer_config(self, cfg: Config) -> Mapping[str, Any]:
        """The visualiser of the config, if a ``MultiTaskVisualizer``; else one with those of the libraries."""
        own = cfg.get('visualizer') or {}
        return own if kind_of(own) == MultiTaskVisualizer.__name__ else dict(type=scoped(MultiTaskVisualizer))

    def drawing_options(self, score_thr: float) -> dict[str, Any]:
        return dict(pred_score_thr=score_thr)

    def draw_annotations(self, visualizer: Visualizer, image: np.ndarray, sample: Any, **options: Any) -> None:
        if sample.get(LABELS_OF_FILE):
            height, width = sample.ori_shape[:2]
            image = mmcv.imresize(image, (width, height))
        super().draw_annotations(visualizer, image, sample, **options)
