"""The tools' view of one network for several tasks: each task is left to the adapter of its library."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from mmengine.visualization import Visualizer

from icconv_mm.checkpoints.metadata import dataset_meta_of, mapping, meta_of
from icconv_mm.data.tree import datasets_in, dicts_in, kind_of, leaf_datasets, phase_datasets
from icconv_mm.registry import VISUALIZERS, scoped
from icconv_mm.tasks.multitask.checks import check_model
from icconv_mm.tasks.multitask.data import MultiTaskDataset, TaskMetric
from icconv_mm.tasks.multitask.model import LABELS_OF_FILE, MultiTaskModel
from icconv_mm.tasks.multitask.transforms import LoadTaskAnnotations
from icconv_mm.tasks.task import NotSupportedError, TaskAdapter, adapter_of, library_of, metainfo_of, registered_class
from icconv_mm_runtime.drawing import Content, joined


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

    def with_loaders(self, dataset: Any, where: str) -> Iterator[tuple[str, Any, Sequence[Any]]]:
        """The datasets of each task, with what loads the labels of the task."""
        for place, each in datasets_in(dataset, where):
            if isinstance(each, MultiTaskDataset):
                joined = [t for t in each.pipeline.transforms if isinstance(t, LoadTaskAnnotations)]
                for name, own in each.datasets.items():
                    loaders = [t.loaders[name] for t in joined if name in t.loaders]
                    yield from ((at, leaf, loaders) for at, leaf in leaf_datasets(own, f'{place}.datasets.{name}'))

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        if library := library_of(type(dataset)):
            adapter_of(library).check_dataset(dataset, where, loaders)

    def check_together(self, datasets: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        for library in filter(None, {library_of(type(dataset)) for dataset, _ in datasets}):
            own = [(dataset, loaders) for dataset, loaders in datasets if library_of(type(dataset)) == library]
            adapter_of(library).check_together(own)

    def check_model(self, model: Any, dataset: Any, where: str, training: bool) -> None:
        if isinstance(model, MultiTaskModel):
            check_model(model, dataset, where, training)
            for name, meta in dataset.metainfo.items():
                self.tasks[name].check_heads(model.tasks[name], meta, f'model.tasks.{name}', where)

    def check_metric(self, metric: Any, meta: Mapping[str, Any], where: str, source: str = 'the file') -> None:
        if isinstance(metric, TaskMetric) and metric.task in self.tasks:
            self.tasks[metric.task].check_metric(metric.metric, meta.get(metric.task, {}), f'{where}.metric', source)

    def prepare_loaders(self, cfg: Config) -> None:
        for place, dataset in phase_datasets(cfg, 'train', 'val', 'test'):
            for _, each in datasets_in(dataset, place):
                joined = [node for node in dicts_in(each.get('pipeline')) if kind_of(node) == 'LoadTaskAnnotations']
                for name in self.tasks.keys() & (each.get('datasets') or {}) if joined else ():
                    _, leaf = next(leaf_datasets(each.datasets[name], name))
                    for node in joined:
                        self.tasks[name].prepare_loader(node.get(name) or {}, leaf, cfg.model.tasks[name])

    def explain_data(self, dataset_cfg: Mapping[str, Any], where: str, *, empty: bool) -> None:
        if library := library_of(registered_class(DATASETS, dataset_cfg.get('type'), where)):
            adapter_of(library).explain_data(dataset_cfg, where, empty=empty)

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

    def content(self, sample: Any, dataset_meta: Mapping[str, Any], score_thr: float) -> Content:
        """All tasks on one picture."""
        parts = self.parts(dict(dataset_meta)).items()
        known = [(adapter, sample.get(name), meta) for name, (adapter, meta) in parts if sample.get(name) is not None]
        return joined(adapter.content(own, meta, score_thr) for adapter, own, meta in known)

    def enlarge(self, sample: Any, size: tuple[int, int]) -> None:
        for name, adapter in self.tasks.items():
            if (own := sample.get(name)) is not None:
                adapter.enlarge(own, size)
        super().enlarge(sample, size)

    def drawing_options(self, score_thr: float) -> dict[str, Any]:
        return dict(pred_score_thr=score_thr)

    def draw_annotations(self, visualizer: Visualizer, image: np.ndarray, sample: Any, **options: Any) -> None:
        if sample.get(LABELS_OF_FILE):
            height, width = sample.ori_shape[:2]
            image = mmcv.imresize(image, (width, height))
        super().draw_annotations(visualizer, image, sample, **options)


@VISUALIZERS.register_module()
class MultiTaskVisualizer(Visualizer):
    """Draws each task with the visualiser of its library, on top of each other.

    Args:
        name, vis_backends, ...: The arguments of mmengine's ``Visualizer``.
        visualizers: Config of the visualiser of a library by its name (``mmdet=dict(type=...)``), where another than
            the library's own default is wanted.
    """

    def __init__(
        self, name: str = 'visualizer', *args, visualizers: Mapping[str, Mapping[str, Any]] | None = None, **kwargs
    ) -> None:
        super().__init__(name, *args, **kwargs)
        self._configs = visualizers or {}
        self._painters: dict[str, Visualizer] = {}
        self._dataset_meta: Mapping[str, dict] = {}

    @property
    def dataset_meta(self) -> Mapping[str, dict]:
        """What the dataset says of each task, by name."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: Mapping[str, dict] | None) -> None:
        self._dataset_meta = meta or {}
        self._painters = {}

    def _painter(self, name: str, adapter: TaskAdapter) -> Visualizer:
        """The visualiser of a task's library with the classes and colours of the task."""
        if name not in self._painters:
            config = copy.deepcopy(dict(self._configs.get(adapter.library, adapter.layer_visualizer)))
            config.update(name=f'{self.instance_name}_{name}_{id(self)}', vis_backends=None)
            self._painters[name] = VISUALIZERS.build(config)
            adapter.set_dataset_meta(self._painters[name], self._dataset_meta[name])
        return self._painters[name]

    def add_datasample(  # noqa: PLR0917 - called by the hooks of the libraries
        self,
        name: str,
        image: np.ndarray,
        data_sample: Any = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        step: int = 0,
        pred_score_thr: float = 0.3,
    ) -> None:
        """Draw labels and predictions of all tasks on ``image`` [H, W, 3] (RGB, uint8).

        Without ``out_file`` the image goes to the backends, as with any visualiser.
        """
        known = [(library_of(type(sample)), task) for task, sample in data_sample.items() if task in self._dataset_meta]
        adapters = {task: adapter_of(library) for library, task in known if library}
        for task, adapter in sorted(adapters.items(), key=lambda each: each[1].layer):
            sample, painter = data_sample.get(task), self._painter(task, adapter)
            if draw_gt and any(key.startswith('gt_') for key in sample.all_keys()):
                image = _painted(painter, adapter.draw_annotations, image, sample)
            if draw_pred and any(key.startswith('pred_') for key in sample.all_keys()):
                image = _painted(painter, adapter.draw_predictions, image, sample, pred_score_thr, None)
        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(image[..., ::-1], out_file)
        else:
            self.add_image(name, image, step)


def _painted(painter: Visualizer, draw: Any, image: np.ndarray, *args) -> np.ndarray:
    """What an adapter draws: without a file, the libraries give it to ``add_image``."""
    kept: list[np.ndarray] = []
    painter.add_image = lambda name, image, *_, **__: kept.append(image)  # shadows the method of the class
    try:
        draw(painter, image, *args)
    finally:
        del painter.add_image
    return kept[-1]
