"""One image with the labels or predictions of every task."""

import copy
from collections.abc import Mapping
from typing import Any

import mmcv
import numpy as np
from mmengine.visualization import Visualizer

from icconv_mm.registry import VISUALIZERS
from icconv_mm.tasks.base import TaskAdapter
from icconv_mm.tasks.libraries import adapter_of, library_of


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
