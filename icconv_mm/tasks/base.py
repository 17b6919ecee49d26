"""What the tools need to know about a task; each task folder has one subclass, ``Adapter`` in its ``adapter.py``."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, VISUALIZERS
from mmengine.visualization import Visualizer

from icconv_mm.checkpoints.metadata import dataset_meta_of
from icconv_mm.datasets.walk import leaf_datasets, with_pipeline
from icconv_mm.errors import ArgumentError

# top-level keys of a config that a test with augmented copies needs
TTA_KEYS = ('tta_model', 'tta_pipeline')


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
    """

    library: str = ''
    dump_metric: str = 'DumpResults'
    autocast_modules: tuple[str, ...] | None = None
    visualization_hook: Mapping[str, Any] = dict(type='VisualizationHook', enable=True, interval=1)

    # --- tests ---

    def show_predictions(self, cfg: Config, show: bool, out_dir: str | None, wait_time: float) -> None:
        """Change ``cfg`` so that testing shows its predictions on screen, or writes them to ``out_dir``."""
        hook = dict(self.visualization_hook, show=show, wait_time=wait_time, out_dir=out_dir)
        cfg.default_hooks.visualization = hook

    def enable_tta(self, cfg: Config) -> None:
        """Change ``cfg`` so that testing averages over augmented copies of each image."""
        missing = [name for name in TTA_KEYS if name not in cfg]
        if missing:
            raise NotSupportedError(f'tta needs {" and ".join(missing)}, which {cfg.filename} does not define')
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
        return False

    def classes(self, dataset_cfg: Mapping[str, Any]) -> tuple[str, ...]:
        """Class names of a dataset config: its ``metainfo``, else those of its type."""
        known = getattr(DATASETS.get(dataset_cfg['type']), 'METAINFO', {})
        return tuple((dataset_cfg.get('metainfo') or {}).get('classes') or known.get('classes') or ())

    # --- inference ---

    def dataset_meta(self, checkpoint: Any, cfg: Config) -> dict:
        """Class names and colours: those that a checkpoint says, else those of the config's dataset.

        Raises:
            InputError: What the checkpoint says of them is not of the form that libraries write.
        """
        meta = dataset_meta_of(checkpoint)
        for phase in ('test', 'val', 'train'):
            loader = cfg.get(f'{phase}_dataloader')
            if not loader or ('classes' in meta and 'palette' in meta):
                continue
            _, dataset = next(leaf_datasets(loader.dataset, ''))
            kind = DATASETS.get(dataset.type)
            for source in (dataset.get('metainfo') or {}, getattr(kind, 'METAINFO', {})):
                meta.update({key.lower(): value for key, value in source.items() if key.lower() not in meta})
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
        kind = cfg.visualizer.type
        if '.' not in kind:  # whatever default scope the process has by now
            kind = f'{self.library}.{kind}'
        options = {**cfg.visualizer, 'type': kind, 'vis_backends': None, 'name': f'icconv_mm_{id(cfg)}'}
        visualizer = VISUALIZERS.build(options)
        self.set_dataset_meta(visualizer, dataset_meta)
        return visualizer

    def set_dataset_meta(self, visualizer: Visualizer, dataset_meta: dict) -> None:
        """Give a visualiser the class names and colours of a dataset."""
        visualizer.dataset_meta = dataset_meta

    def draw_predictions(
        self, visualizer: Visualizer, image: np.ndarray, sample: Any, score_thr: float, out_file: str
    ) -> None:
        """Draw the predictions in ``sample`` on ``image`` [H, W, 3] (RGB, uint8) and write ``out_file``."""
        visualizer.add_datasample('predictions', image, sample, draw_gt=False, out_file=out_file)

    def draw_annotations(
        self, visualizer: Visualizer, image: np.ndarray, sample: Any, out_file: str | None, show: bool, wait_time: float
    ) -> None:
        """Draw the ground truth in ``sample``, a packed item of a dataset, on ``image`` [H, W, 3] (RGB, uint8)."""
        visualizer.add_datasample(
            'annotations', image, sample, draw_pred=False, out_file=out_file, show=show, wait_time=wait_time
        )

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        """Predictions of one image as entries of a COCO results file, scored ``score_thr`` or more.

        Args:
            sample: What the model returned for the image.
            image_id: Id of the image in the results.
            category_ids: The COCO category of each label.
            score_thr: Entries that score less are left out.
        """
        raise NotImplementedError
