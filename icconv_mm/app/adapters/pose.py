"""The adapter of mmpose."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.config import Config
from mmpose.datasets.datasets.base import BaseCocoStyleDataset
from mmpose.datasets.datasets.utils import parse_pose_metainfo
from mmpose.evaluation.metrics import CocoMetric

from icconv_mm.app.adapters.base import NotSupportedError, TaskAdapter
from icconv_mm.config_tree import kind_of, with_pipeline
from icconv_mm.datasets import checks
from icconv_mm.datasets.keypoints import keypoint_metainfo
from icconv_mm.datasets.reading import read_json
from icconv_mm.datasets.segmentations import check_segmentations
from icconv_mm.errors import naming
from icconv_mm.tasks.pose.datasets import BottomupMixin
from icconv_mm.tasks.pose.estimator import AEPoseEstimator
from icconv_mm_runtime.drawing import Drawing, drawing_of
from icconv_mm_runtime.results import Arrays
from icconv_mm_runtime.thresholds import KEYPOINT_SCORE

SCALES = (2, 1, 0.5)  # scales of the published multi-scale test


class Adapter(TaskAdapter):
    """Adapter for bottom-up pose estimators of mmpose."""

    library = 'mmpose'
    kind = 'pose'
    visualization_hook = dict(type='PoseVisualizationHook', enable=True, interval=1, kpt_thr=KEYPOINT_SCORE)
    coco_datasets = (BaseCocoStyleDataset,)

    def enable_tta(self, cfg: Config) -> None:
        """Enables the published multi-scale test: scales 2, 1 and 0.5, each with the flipped image."""
        transforms = [t for dataset in with_pipeline(cfg.test_dataloader.dataset) for t in dataset.pipeline]
        resize = [t for t in transforms if kind_of(t) == 'MultiScaleResize']
        if not resize:
            needed = 'one icconv_mm.MultiScaleResize in the test pipeline'
            raise NotSupportedError('tta', f'{cfg.filename}: expected {needed}, found 0')
        for transform in resize:
            transform.scales = list(SCALES)
        cfg.model.setdefault('test_cfg', {})
        cfg.model.test_cfg.flip_test = True

    def enable_scales(self, model: dict) -> bool:
        """Enables the multi-scale test with flips for an estimator of this package inside a larger network."""
        if kind_of(model) != AEPoseEstimator.__name__:
            return False
        model['test_cfg'] = {**model.get('test_cfg', {}), 'test_scales': list(SCALES), 'flip_test': True}
        return True

    # --- datasets ---

    def check_dataset(self, dataset: Any, where: str, loaders: Sequence[Any] = ()) -> None:
        """Checks the people of bottom-up datasets; this package's datasets check each person when reading it."""
        if not _is_bottomup(dataset) or '://' in dataset.ann_file:
            return
        nobody = not _has_keypoints(dataset)
        is_plain = not isinstance(dataset, BottomupMixin)
        content = read_json(dataset.ann_file) if nobody or is_plain else {}
        people = [annotation for annotation in content.get('annotations', ()) if annotation.get('keypoints')]
        with naming(where):
            if is_plain:
                checks.check_once(content, dataset.ann_file)
                checks.warn_of_lost_people(content, dataset.ann_file)
                checks.check_people({**content, 'annotations': people}, dataset.ann_file, needed=('bbox',))
                check_segmentations(content, dataset.ann_file)
            if nobody and people:
                checks.check_coco_file(dataset.ann_file)
                raise checks.DatasetError(
                    f'none of the {len(people)} people of {dataset.ann_file} has a keypoint to learn: one of '
                    'visibility 1 or 2, inside its image and in its pixels'
                )

    def check_together(self, datasets: Sequence[tuple[Any, Sequence[Any]]]) -> None:
        """Raises DatasetError if no person has a keypoint to train on."""
        if not any(not _is_bottomup(dataset) or _has_keypoints(dataset) for dataset, _ in datasets):
            raise checks.DatasetError('no image has a person with a keypoint: there is nothing to learn')

    def check_metric(self, metric: Any, meta: Mapping[str, Any], where: str, source: str = 'the file') -> None:
        """Raises DatasetError if a person lacks a field that pycocotools reads."""
        if isinstance(metric, CocoMetric) and metric.coco is not None and metric.iou_type.startswith('keypoints'):
            fields = ('keypoints', 'bbox')
            fields += ('area',) if metric.use_area else ()
            fields += ('num_keypoints',) if metric.iou_type == 'keypoints_crowd' else ()
            with naming(f'{where}.ann_file'):
                checks.check_once(metric.coco.dataset, source)
                checks.check_people(metric.coco.dataset, source, needed=fields)
                checks.warn_of_areas(metric.coco.dataset, source) if metric.use_area else None

    # --- inference ---

    def class_names(self, dataset_meta: dict) -> tuple[str, ...]:
        """Returns the class names: mmpose keeps the annotation file's categories, or none, which means people."""
        classes = dataset_meta.get('classes') or dataset_meta.get('CLASSES') or ('person',)  # a dataset has capitals
        return tuple(item['name'] if isinstance(item, dict) else item for item in classes)

    def model_input(self, path: str, dataset_meta: dict) -> dict:
        return {**super().model_input(path, dataset_meta), **_parsed(dataset_meta)}

    def described(self, dataset_meta: Mapping[str, Any]) -> dict[str, Any]:
        meta = _parsed(dict(dataset_meta))
        links = [tuple(map(int, link)) for link in meta.get('skeleton_links') or ()]
        names = [meta['keypoint_id2name'][k] for k in range(meta['num_keypoints'])]
        return {**super().described(dataset_meta), 'keypoints': names, 'skeleton': links}

    def annotations(self, sample: Any, dataset_meta: Mapping[str, Any]) -> Drawing:
        people = sample.gt_instances
        if 'keypoints' not in people:
            return Drawing()
        points, shape = np.asarray(people.keypoints), None
        if 'input_scale' in sample:
            # Test pipelines resize the image but leave the annotations in pixels of the file, of which the image shows
            # a part.
            points, shape = points - (sample.input_center - sample.input_scale / 2), tuple(sample.input_scale[::-1])
        arrays = {'keypoints': points, 'keypoint_scores': np.asarray(people.keypoints_visible)}
        content = drawing_of(self.described(dataset_meta), arrays)
        content.shape = shape
        return content

    def predictions(self, sample: Any) -> Arrays:
        names = {'keypoints': 'keypoints', 'keypoint_scores': 'keypoint_scores', 'scores': 'bbox_scores'}
        return {name: np.asarray(sample.pred_instances[key]) for name, key in names.items()}

    def enlarge(self, sample: Any, shape: tuple[int, int]) -> None:
        people, scale = sample.pred_instances, shape[1] / sample.ori_shape[1]
        people.keypoints = (people.keypoints + 0.5) * scale - 0.5
        super().enlarge(sample, shape)


def _is_bottomup(dataset: Any) -> bool:
    return isinstance(dataset, BaseCocoStyleDataset) and dataset.data_mode == 'bottomup'


def _has_keypoints(dataset: Any) -> bool:
    """Returns whether any keypoint is labelled, in pixels, and inside its image if the dataset gives the image size."""
    for i in range(len(dataset)):
        info = dataset.get_data_info(i)
        if 'keypoints' not in info:  # mmpose's info of a test image without people
            continue
        size = info.get('width') or np.inf, info.get('height') or np.inf
        points = info['keypoints']
        inside = ((points >= 0) & (points < size)).all(-1) & (points > 1).any(-1)
        if (inside & (info['keypoints_visible'] > 0)).any():
            return True
    return False


def _parsed(dataset_meta: dict) -> dict:
    """Returns the parsed metainfo (keypoints, flip pairs, skeleton, colours); ``METAINFO`` may only name their file."""
    return dataset_meta if 'flip_indices' in dataset_meta else parse_pose_metainfo(keypoint_metainfo(dataset_meta))
