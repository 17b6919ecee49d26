"""The tools' view of mmdet."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.models.utils import mask2ndarray
from mmdet.structures.bbox import BaseBoxes
from mmengine.config import Config, ConfigDict
from mmengine.visualization import Visualizer

from icconv_mm.datasets.checks import check_class_order
from icconv_mm.datasets.nesting import with_pipeline
from icconv_mm.tasks.base import TaskAdapter
from icconv_mm.tasks.coco_format import run_lengths, xywh


class Adapter(TaskAdapter):
    """Detectors and instance segmentors of mmdet."""

    library = 'mmdet'
    dump_metric = 'DumpDetResults'
    autocast_modules = ('backbone', 'neck')  # the CPU kernels of RoIAlign and NMS that the heads call take float32 only
    visualization_hook = dict(type='DetVisualizationHook', draw=True)
    shown_dir = 'test_out_dir'
    layer_visualizer = dict(type='mmdet.DetLocalVisualizer')
    coco_datasets = (CocoDataset,)
    layer = 2

    def enable_tta(self, cfg: Config) -> None:
        """As mmdet's own tool: a config without ``tta_model`` is tested with a horizontal flip."""
        if 'tta_model' not in cfg:
            nms = dict(type='nms', iou_threshold=0.5)
            cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
        if 'tta_pipeline' not in cfg:
            cfg.tta_pipeline = _flip_pipeline(with_pipeline(cfg.test_dataloader.dataset)[0].pipeline)
        super().enable_tta(cfg)

    def check_dataset(self, dataset: Any, where: str) -> None:
        if isinstance(dataset, CocoDataset):
            check_class_order(dataset.ann_file, dataset.metainfo['classes'], dataset.cat2label, where)

    def drawing_options(self, score_thr: float) -> dict[str, Any]:
        return dict(pred_score_thr=score_thr)

    def draw_annotations(self, visualizer: Visualizer, image: np.ndarray, sample: Any, **options: Any) -> None:
        sample = sample.numpy()
        instances = sample.gt_instances
        if isinstance(instances.get('bboxes'), BaseBoxes):
            instances.bboxes = instances.bboxes.tensor
        if 'masks' in instances:
            instances.masks = mask2ndarray(instances.masks).astype(bool)
        super().draw_annotations(visualizer, image, sample, **options)

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        instances = sample.pred_instances.cpu().numpy()
        records = []
        for i in (instances.scores >= score_thr).nonzero()[0]:
            record = dict(
                image_id=image_id,
                category_id=category_ids[int(instances.labels[i])],
                bbox=xywh(instances.bboxes[i]),
                score=round(float(instances.scores[i]), 5),
            )
            if 'masks' in instances:
                record['segmentation'] = run_lengths(instances.masks[i])
            records.append(record)
        return records


def _flip_pipeline(pipeline: list) -> list:
    """A test pipeline whose last transform, the packing, runs on the image and on its mirror image."""
    *transforms, pack = copy.deepcopy(pipeline)
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=1.0), dict(type='RandomFlip', prob=0.0)]
    test_time = dict(type='TestTimeAug', transforms=[flips, [dict(type=pack['type'], meta_keys=keys)]])
    return [ConfigDict(transform) for transform in (*transforms, test_time)]
