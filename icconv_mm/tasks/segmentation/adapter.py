"""The tools' view of mmseg."""

from collections.abc import Sequence
from typing import Any

from mmengine.config import Config

from icconv_mm.tasks.base import TaskAdapter
from icconv_mm.tasks.coco_format import run_lengths


class Adapter(TaskAdapter):
    """Semantic segmentors of mmseg."""

    library = 'mmseg'
    layer_visualizer = dict(type='mmseg.SegLocalVisualizer', alpha=0.4)
    layer = 1

    def show_predictions(self, cfg: Config, show: bool, out_dir: str | None, wait_time: float) -> None:
        cfg.default_hooks.visualization = dict(
            type='SegVisualizationHook', draw=True, interval=1, show=show, wait_time=wait_time
        )
        if out_dir:
            cfg.visualizer.save_dir = out_dir

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        """One entry per class that occurs, as in COCO's stuff results: a mask and no score."""
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        present = [label for label in range(len(category_ids)) if (labels == label).any()]
        return [
            dict(image_id=image_id, category_id=category_ids[label], segmentation=run_lengths(labels == label))
            for label in present
        ]
