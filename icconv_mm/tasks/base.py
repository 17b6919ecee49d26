"""What the tools need to know about a task; each task folder has one subclass, ``Adapter`` in its ``adapter.py``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, VISUALIZERS
from mmengine.visualization import Visualizer

from icconv_mm.checkpoints.metadata import dataset_meta_of
from icconv_mm.datasets.nesting import leaf_datasets, phase_datasets, with_pipeline
from icconv_mm.errors import ArgumentError

# top-level keys of a config that a test with augmented copies needs
TTA_KEYS = ('tta_model', 'tta_pipeline')


def metainfo_of(kind: Any, dataset_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a class of datasets and the config of one say of its classes, by lower-case name; the config wins."""
    sources = getattr(kind, 'METAINFO', {}), dataset_cfg.get('metainfo') or {}
    return {key.lower(): value for source in sources for key, value in source.items()}


class NotSupportedError(ArgumentError):
    """The task or the config lacks what an argument needs."""


class TaskAdapter:
    """Defaults that hold for every OpenMMLab library; a task overrides what differs.

    Attributes:
        library: Import name of the library, the ``default_scope`` of its configs.
        dump_metric: Metric that writes predictions to a pickle file (``out`` of :func:`icconv_mm.apis.test`).
        autocast_modules: Names of the model's children that run in bfloat16 where a CPU trains with ``amp``; None for
            the whole model. Where a head calls an operator of mmcv, only what comes before it can.
        visualization_hook: Config of the hook that shows predictions.
        shown_dir: The hook's argument for the folder of the images that it writes.
        layer_visualizer: Config of the visualiser that draws on top of those of other tasks.
        coco_datasets: Classes of datasets that read annotation files in COCO format.
        layer: Place of its drawing among those of other tasks: what fills the image first, lines last.
    """

    library: str = ''
    dump_metric: str = 'DumpResults'
    autocast_modules: tuple[str, ...] | None = None
    visualization_hook: Mapping[str, Any] = dict(type='VisualizationHook', enable=True, interval=1)
    shown_dir: str = 'out_dir'
    layer_visualizer: Mapping[str, Any] = {}
    coco_datasets: tuple[type, ...] = ()
    layer: int = 0

    # --- tests ---

    def show_predictions(self, cfg: Config, show: bool, out_dir: str | None, wait_time: float) -> None:
        """Change ``cfg`` so that testing shows its predictions on screen, or writes them to ``out_dir``."""
        hook = dict(self.visualization_hook, show=show, wait_time=wait_time)
        cfg.default_hooks.visualization = hook | {self.shown_dir: out_dir}

    def enable_tta(self, cfg: Config) -> None:
        """Change ``cfg`` so that testing averages over augmented copies of each image."""
        missing = [name for name in TTA_KEYS if name not in cfg]
        if missing:
            raise NotSupportedError('tta', f'{cfg.filename} does not define {" and ".join(missing)}')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        for dataset in with_pipeline(cfg.test_dataloader.dataset):
            dataset.pipeline = cfg.tta_pipeline

    def enable_scales(self, model: dict) -> bool:
        """Change the config of a model so that it tests at several scales by itself; False if it cannot."""
        return False

    # --- datasets ---

    def check_dataset(self, dataset: Any, where: str) -> None:
        """Raise :class:`icconv_mm.datasets.checks.DatasetError` for a dataset that was built but cannot be right."""

    def check_model(self, model: Any, dataset: Any, where: str, training: bool) -> None:
        """Raise InputError if a model and a dataset that were built cannot go together; ``where`` names the dataset."""

    def is_coco(self, dataset_type: str) -> bool:
        """Whether datasets of this type read annotation files in COCO format."""
        kind = DATASETS.get(self._scoped(dataset_type))
        return isinstance(kind, type) and issubclass(kind, self.coco_datasets)

    def classes(self, dataset_cfg: Mapping[str, Any]) -> tuple[str, ...]:
        """Class names of a dataset config: its ``metainfo``, else those of its type."""
        return tuple(metainfo_of(DATASETS.get(dataset_cfg['type']), dataset_cfg).get('classes') or ())

    # --- inference ---

    def dataset_meta(self, checkpoint: Any, cfg: Config) -> dict:
        """Class names and colours: those that a checkpoint says, else those of the config's dataset.

        Raises:
            InputError: What the checkpoint says of them is not of the form that libraries write.
        """
        meta = dataset_meta_of(checkpoint)
        for where, dataset in phase_datasets(cfg, 'test', 'val', 'train'):
            if not {'classes', 'palette'} <= meta.keys():
                _, leaf = next(leaf_datasets(dataset, where))
                meta = {**metainfo_of(DATASETS.get(leaf.type), leaf), **meta}
        return meta

    def parts(self, dataset_meta: dict) -> 'dict[str, tuple[TaskAdapter, dict]]':
        """The tasks of a network by name, each with its adapter and class names; '' where there is one without name."""
        return {'': (self, dataset_meta)}

    def class_names(self, dataset_meta: dict) -> tuple[str, ...]:
        """Class names by label."""
        return tuple(dataset_meta.get('classes') or ())

    def model_input(self, path: str, dataset_meta: dict) -> dict:
        """What the first transform of the test pipeline gets for the image at ``path``."""
        return {'img_path': path, 'img_id': 0}

    def visualizer(self, cfg: Config, dataset_meta: dict) -> Visualizer:
        """The visualiser of a config, with class names and colours, not bound to a folder."""
        options = {**self.visualizer_config(cfg), 'vis_backends': None, 'name': f'icconv_mm_{id(cfg)}'}
        visualizer = VISUALIZERS.build(options)
        self.set_dataset_meta(visualizer, dataset_meta)
        return visualizer

    def visualizer_config(self, cfg: Config) -> Mapping[str, Any]:
        """The visualiser of a config, to be built whatever default scope the process has by now."""
        return {**cfg.visualizer, 'type': self._scoped(cfg.visualizer.type)}

    def _scoped(self, kind: str) -> str:
        return kind if '.' in kind else f'{self.library}.{kind}'

    def set_dataset_meta(self, visualizer: Visualizer, dataset_meta: dict) -> None:
        """Give a visualiser the class names and colours of a dataset."""
        visualizer.dataset_meta = dataset_meta

    def draw_predictions(
        self, visualizer: Visualizer, image: np.ndarray, sample: Any, score_thr: float, out_file: str
    ) -> None:
        """Draw the predictions in ``sample`` on ``image`` [H, W, 3] (RGB, uint8) and write ``out_file``."""
        options = self.drawing_options(score_thr)
        visualizer.add_datasample('predictions', image, sample, draw_gt=False, out_file=out_file, **options)

    def drawing_options(self, score_thr: float) -> dict[str, Any]:
        """Further arguments of the library's visualiser for predictions that score ``score_thr`` or more."""
        return {}

    def draw_annotations(self, visualizer: Visualizer, image: np.ndarray, sample: Any, **options: Any) -> None:
        """Draw the ground truth in ``sample``, a packed item of a dataset, on ``image`` [H, W, 3] (RGB, uint8).

        ``options`` are ``out_file``, ``show`` and ``wait_time`` of the library's visualiser.
        """
        visualizer.add_datasample('annotations', image, sample, draw_pred=False, **options)

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        """Predictions of one image as entries of a COCO results file, scored ``score_thr`` or more.

        Args:
            sample: What the model returned for the image.
            image_id: Id of the image in the results.
            category_ids: The COCO category of each label.
            score_thr: Entries that score less are left out.
        """
        raise NotImplementedError
