"""The tools' view of mmpretrain."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.visualization import Visualizer

from icconv_mm.data.checks import check_order
from icconv_mm.tasks.task import TaskAdapter
from icconv_mm_runtime.drawing import Content


class Adapter(TaskAdapter):
    """Classifiers of mmpretrain."""

    library = 'mmpretrain'
    layer_visualizer = dict(type='mmpretrain.UniversalVisualizer')

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Labels by name where the folders have them: mmpretrain numbers folders by the alphabet."""
        classes = dataset.metainfo.get('classes') or ()
        folders = getattr(dataset, 'folder_to_idx', None) or {}
        labels = {name: label for name, label in folders.items() if name in classes}
        check_order(classes, labels, where, 'the order of folders')

    def draw_predictions(
        self, visualizer: Visualizer, image: np.ndarray, sample: Any, score_thr: float, out_file: str
    ) -> None:
        visualizer.visualize_cls(image, sample, draw_gt=False, out_file=out_file)

    def draw_annotations(self, visualizer: Visualizer, image: np.ndarray, sample: Any, **options: Any) -> None:
        visualizer.visualize_cls(image, sample, draw_pred=False, **options)

    def content(self, sample: Any, dataset_meta: Mapping[str, Any], score_thr: float) -> Content:
        score, label = sample.pred_score.cpu().max(0)
        classes = self.class_names(dataset_meta)
        return Content(title=f'{classes[int(label)] if classes else int(label)} {float(score):.2f}')

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        """One entry per class that scores enough, best first: a category, a score and no box."""
        scores = sample.pred_score.cpu()
        labels = [label for label in scores.argsort(descending=True).tolist() if scores[label] >= score_thr]
        return [
            dict(image_id=image_id, category_id=category_ids[label], score=round(float(scores[label]), 5))
            for label in labels
        ]
