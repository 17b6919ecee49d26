"""The adapter of a network for several tasks, which delegates each task to its library's adapter."""

import itertools
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.visualization import Visualizer

from icconv_mm.app.adapters.base import PHASES_TO_NAME, NotSupportedError, TaskAdapter, metainfo_of
from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.adapters.multitask_checks import check_model
from icconv_mm.checkpoints.metadata import dataset_meta_of, mapping, meta_of
from icconv_mm.config_tree import DatasetAt, datasets_in, kind_of, leaf_datasets
from icconv_mm.registry import VISUALIZERS
from icconv_mm.tasks.libraries import library_of, registered_class
from icconv_mm.tasks.multitask.data import MultiTaskDataset, TaskMetric
from icconv_mm.tasks.multitask.model import LABELS_OF_FILE, MultiTaskModel
from icconv_mm.tasks.multitask.transforms import LoadTaskAnnotations
from icconv_mm_runtime.drawing import Drawing, draw, encoded, joined
from icconv_mm_runtime.files import write_bytes


class Adapter(TaskAdapter):
    """Adapter for networks of :class:`MultiTaskModel`.

    Args:
        libraries: The library of each task by its name; None for a type of no known library.
    """

    library = 'mmengine'  # its configs name the library of every type
    autocast_modules = ('backbone', 'neck')  # mmdet's heads call kernels that need float32
    visualization_hook = dict(type='mmdet.DetVisualizationHook', draw=True)
    shown_dir = 'test_out_dir'

    def __init__(self, libraries: Mapping[str, str | None]) -> None:
        self.tasks = {name: adapter_of(library) if library else TaskAdapter() for name, library in libraries.items()}

    # --- tests ---

    def enable_tta(self, cfg: Config) -> None:
        """Enables the published multi-scale test, with flips, for poses; the other tasks are tested as without it."""
        enabled = [self.tasks[name].enable_scales(task) for name, task in cfg.model.tasks.items()]
        if not any(enabled):
            needed = 'an icconv_mm.AEPoseEstimator in model.tasks'
            raise NotSupportedError('tta', f'{cfg.filename}: expected {needed}, found 0')

    # --- datasets ---

    def with_loaders(self, dataset: Any, where: str) -> Iterator[tuple[str, Any, Sequence[Any]]]:
        """Yields the datasets of each task, with the transforms that load its annotations."""
        for location, node in datasets_in(dataset, where):
            if isinstance(node, MultiTaskDataset):
                joined = [t for t in node.pipeline.transforms if isinstance(t, LoadTaskAnnotations)]
                for name, part in node.datasets.items():
                    loaders = [t.loaders[name] for t in joined if name in t.loaders]
                    yield from ((at, leaf, loaders) for at, leaf in leaf_datasets(part, f'{location}.datasets.{name}'))

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        if library := library_of(type(dataset)):
            adapter_of(library).check_dataset(dataset, where, loaders)

    def check_together(self, datasets: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        for library in filter(None, {library_of(type(dataset)) for dataset, _ in datasets}):
            pairs = [(dataset, loaders) for dataset, loaders in datasets if library_of(type(dataset)) == library]
            adapter_of(library).check_together(pairs)

    def check_model(self, model: Any, dataset: Any, where: str, training: bool) -> None:
        if isinstance(model, MultiTaskModel):
            check_model(model, dataset, where, training)
            for name, meta in dataset.metainfo.items():
                self.tasks[name].check_heads(model.tasks[name], meta, f'model.tasks.{name}', where)

    def check_metric(self, metric: Any, meta: Mapping[str, Any], where: str, source: str = 'the file') -> None:
        if isinstance(metric, TaskMetric) and metric.task in self.tasks:
            self.tasks[metric.task].check_metric(metric.metric, meta.get(metric.task, {}), f'{where}.metric', source)

    def prepare_loaders(self, datasets: Mapping[str, Sequence[DatasetAt]], model_cfg: Mapping[str, Any]) -> None:
        every = list(itertools.chain(*datasets.values()))
        for dataset in every:
            joined = [node.cfg for node in dataset.transforms if node.kind == 'LoadTaskAnnotations']
            for name in self.tasks.keys() & (dataset.cfg.get('datasets') or {}) if joined else ():
                start = f'{dataset.location}.datasets.{name}.'
                leaf = next(
                    dataset.cfg for dataset in every if dataset.is_leaf and f'{dataset.location}.'.startswith(start)
                )
                for node in joined:
                    self.tasks[name].prepare_loader(node.get(name) or {}, leaf, model_cfg['tasks'][name])

    def hooks(
        self, model_cfg: Mapping[str, Any], metrics: Sequence[MutableMapping[str, Any]], task: str = ''
    ) -> list[Hook]:
        hooks = []
        for name, adapter in self.tasks.items():
            task_metrics = [
                node['metric'] for node in metrics if kind_of(node) == 'TaskMetric' and node.get('task') == name
            ]
            hooks += adapter.hooks(model_cfg['tasks'][name], task_metrics, name)
        return hooks

    def explain_data(self, dataset_cfg: Mapping[str, Any], where: str, *, empty: bool) -> None:
        if library := library_of(registered_class(DATASETS, dataset_cfg.get('type'), where)):
            adapter_of(library).explain_data(dataset_cfg, where, empty=empty)

    def is_coco(self, dataset_type: str) -> bool:
        library = library_of(registered_class(DATASETS, dataset_type, 'dataset'))
        return bool(library) and adapter_of(library).is_coco(dataset_type)

    # --- inference ---

    def dataset_meta(self, checkpoint: Any, datasets: Mapping[str, Sequence[DatasetAt]] | None = None) -> dict:
        meta: dict[str, dict] = {}
        for name, saved_meta in mapping(meta_of(checkpoint).get('dataset_meta') or {}, 'meta.dataset_meta').items():
            if name in self.tasks:
                meta[name] = dataset_meta_of({'meta': {'dataset_meta': saved_meta}})
        for dataset in itertools.chain(*((datasets or {}).get(phase, ()) for phase in PHASES_TO_NAME)):
            if dataset.is_leaf:
                name = dataset.location.rpartition('.')[2]
                kind = registered_class(DATASETS, dataset.cfg.get('type'), dataset.location)
                if name in self.tasks and name not in meta:
                    meta[name] = metainfo_of(kind, dataset.cfg)
        return meta

    def parts(self, dataset_meta: dict) -> dict[str, tuple[TaskAdapter, dict]]:
        return {name: (adapter, dataset_meta.get(name, {})) for name, adapter in self.tasks.items()}

    def class_names(self, dataset_meta: dict) -> tuple[str, ...]:
        """Returns the class names of all tasks, each once."""
        names = (adapter.class_names(meta) for adapter, meta in self.parts(dataset_meta).values())
        return tuple(dict.fromkeys(name for class_name in names for name in class_name))

    def model_input(self, path: str, dataset_meta: dict) -> dict:
        labels = {name: adapter.model_input(path, meta) for name, (adapter, meta) in self.parts(dataset_meta).items()}
        return {'img_path': path, 'img_id': 0, 'labels': labels}

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        return _labels(sample, dataset_meta)

    def enlarge(self, sample: Any, shape: tuple[int, int]) -> None:
        for name, adapter in self.tasks.items():
            if (part := sample.get(name)) is not None:
                adapter.enlarge(part, shape)
        super().enlarge(sample, shape)


@VISUALIZERS.register_module()
class MultiTaskVisualizer(Visualizer):
    """Draws annotations and predictions of all tasks, each on a copy of the image."""

    @master_only
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
        """Draws annotations and predictions of all tasks on ``image`` [H, W, 3] (RGB, uint8).

        Without ``out_file`` the image goes to the backends, as with any visualiser.
        """
        sample, meta, shown = data_sample.to('cpu'), self.dataset_meta or {}, []
        if draw_gt and _parts_of_tasks(sample, meta, 'gt_'):
            shown.append(_labels(sample, meta))
        if draw_pred:
            shown.append(_found(sample, meta, pred_score_thr))
        image = np.concatenate([draw(image[..., ::-1], content) for content in shown or [Drawing()]], axis=1)
        if out_file is not None:
            write_bytes(out_file, encoded(image, Path(out_file).suffix))
        image = np.ascontiguousarray(image[..., ::-1])  # mmengine shows and keeps RGB
        self.set_image(image)
        if show:
            self.show(image, win_name=name, wait_time=wait_time)
        if out_file is None:
            self.add_image(name, image, step)


def _found(sample: Any, dataset_meta: Mapping[str, Any], score_thr: float | None) -> Drawing:
    parts = _parts_of_tasks(sample, dataset_meta, 'pred_')
    return joined(adapter.drawing(sample, meta, score_thr) for adapter, sample, meta in parts)


def _labels(sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
    """Returns the annotations of all tasks as a drawing; in pixels of the file if the image was resized before them."""
    parts = _parts_of_tasks(sample, dataset_meta, 'gt_')
    content = joined(adapter.annotations(sample, meta) for adapter, sample, meta in parts)
    content.shape = tuple(sample.ori_shape[:2]) if sample.get(LABELS_OF_FILE) else None
    return content


def _parts_of_tasks(sample: Any, dataset_meta: Mapping[str, Any], prefix: str) -> list[tuple[TaskAdapter, Any, dict]]:
    """Returns the sample's tasks that have annotations (``gt_``) or predictions (``pred_``), with their metainfo."""
    parts = []
    for name, part_of_task in sample.items():
        library = library_of(type(part_of_task))
        if library and any(key.startswith(prefix) for key in part_of_task.all_keys()):
            parts.append((adapter_of(library), part_of_task, dataset_meta.get(name, {})))
    return parts
