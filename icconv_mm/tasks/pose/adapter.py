"""The tools' view of mmpose."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.visualization import Visualizer
from mmpose.datasets.datasets.base import BaseCocoStyleDataset
from mmpose.datasets.datasets.utils import parse_pose_metainfo

from icconv_mm._deprecated import type_names
from icconv_mm.datasets.nesting import with_pipeline
from icconv_mm.tasks.base import NotSupportedError, TaskAdapter
from icconv_mm.tasks.pose.estimator import AEPoseEstimator
from icconv_mm.utils.config_tree import kind_of

SCALES = (2, 1, 0.5)  # of the published test at several scales
KEYPOINT_THRESHOLD = 0.1  # heatmap value from which a keypoint is drawn: the detection threshold of published models


class Adapter(TaskAdapter):
    """Bottom-up pose estimators of mmpose."""

    library = 'mmpose'
    visualization_hook = dict(type='PoseVisualizationHook', enable=True, interval=1, kpt_thr=KEYPOINT_THRESHOLD)
    layer_visualizer = dict(type='mmpose.PoseLocalVisualizer')
    coco_datasets = (BaseCocoStyleDataset,)
    layer = 3

    def enable_tta(self, cfg: Config) -> None:
        """The published multi-scale test: scales 2, 1 and 0.5, each with the mirrored image."""
        transforms = [t for dataset in with_pipeline(cfg.test_dataloader.dataset) for t in dataset.pipeline]
        resize = [t for t in transforms if kind_of(t) in type_names('MultiScaleResize')]
        if not resize:
            needed = 'one icconv_mm.MultiScaleResize in the test pipeline'
            raise NotSupportedError('tta', f'{cfg.filename}: expected {needed}, found 0')
        for transform in resize:
            transform.scales = list(SCALES)
        cfg.model.setdefault('test_cfg', {})
        cfg.model.test_cfg.flip_test = True

    def enable_scales(self, model: dict) -> bool:
        """Estimators of this package, which are a part of a larger network: each scale with the mirrored image."""
        if kind_of(model) != AEPoseEstimator.__name__:
            return False
        model['test_cfg'] = {**model.get('test_cfg', {}), 'test_scales': list(SCALES), 'flip_test': True}
        return True

    def class_names(self, dataset_meta: dict) -> tuple[str, ...]:
        """mmpose keeps the categories of the annotation file, or nothing; then there are only people."""
        classes = dataset_meta.get('classes') or ('person',)
        return tuple(item['name'] if isinstance(item, dict) else item for item in classes)

    def model_input(self, path: str, dataset_meta: dict) -> dict:
        return {**super().model_input(path, dataset_meta), **_parsed(dataset_meta)}

    def set_dataset_meta(self, visualizer: Visualizer, dataset_meta: dict) -> None:
        super().set_dataset_meta(visualizer, dataset_meta)
        visualizer.set_dataset_meta(_parsed(dataset_meta))

    def draw_predictions(
        self, visualizer: Visualizer, image: np.ndarray, sample: Any, score_thr: float, out_file: str
    ) -> None:
        sample = sample.clone()
        sample.pred_instances = sample.pred_instances[sample.pred_instances.bbox_scores >= score_thr]
        super().draw_predictions(visualizer, image, sample, score_thr, out_file)

    def drawing_options(self, score_thr: float) -> dict[str, Any]:
        return dict(kpt_thr=KEYPOINT_THRESHOLD)

    def draw_annotations(self, visualizer: Visualizer, image: np.ndarray, sample: Any, **options: Any) -> None:
        sample = sample.clone()
        if 'input_scale' in sample and 'keypoints' in sample.gt_instances:
            # Test pipelines resize the image and leave the annotations in the coordinates of the file.
            size = image.shape[1::-1]
            sample.gt_instances = sample.gt_instances.clone()
            corner = sample.input_center - sample.input_scale / 2
            sample.gt_instances.keypoints = (sample.gt_instances.keypoints - corner) / sample.input_scale * size
        super().draw_annotations(visualizer, image, sample, **options)

    def coco_records(self, sample: Any, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        people = sample.pred_instances
        return [
            dict(
                image_id=image_id,
                category_id=category_ids[0],
                keypoints=np.column_stack([keypoints, scores]).round(4).ravel().tolist(),
                score=round(float(score), 5),
            )
            for keypoints, scores, score in zip(people.keypoints, people.keypoint_scores, people.bbox_scores)
            if score >= score_thr
        ]


def _parsed(dataset_meta: dict) -> dict:
    """Keypoint names, flip pairs, skeleton and colours; a class's ``METAINFO`` may only name the file that has them."""
    return dataset_meta if 'flip_indices' in dataset_meta else parse_pose_metainfo(dict(dataset_meta))
