"""mmpose's datasets with a check of the annotations and, on request, with images without people."""

from collections.abc import Sequence

import numpy as np
from mmpose.datasets.datasets import CocoDataset, CrowdPoseDataset

from icconv_mm.errors import InputError
from icconv_mm.registry import DATASETS


class _BottomupMixin:
    """What is added to mmpose's COCO-style datasets.

    Args:
        keep_empty: Whether images without a single annotation take part in training, as pure background.
        *args, **kwargs: Arguments of the dataset; ``data_mode`` is 'bottomup'.

    Raises:
        InputError: If an annotation has another number of keypoints than the dataset, naming file and annotation.
    """

    def __init__(self, *args, keep_empty: bool = False, data_mode: str = 'bottomup', **kwargs):
        self.keep_empty = keep_empty
        super().__init__(*args, data_mode=data_mode, **kwargs)

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        annotation = raw_data_info['raw_ann_info']
        expected = self.metainfo['num_keypoints']
        found = len(annotation.get('keypoints', ()))
        if 'keypoints' in annotation and found != 3 * expected:
            raise InputError(
                f'{self.ann_file}: annotation {annotation.get("id")} of image {annotation.get("image_id")} has '
                f'{found} values in "keypoints", expected {3 * expected} (x, y, visibility of {expected} keypoints)'
            )
        return super().parse_data_info(raw_data_info)

    def _get_bottomup_data_infos(self, instance_list: Sequence[dict], image_list: Sequence[dict]) -> list[dict]:
        data_list = super()._get_bottomup_data_infos(instance_list, image_list)
        if self.test_mode or not self.keep_empty:
            return data_list
        annotated = {info['img_id'] for info in data_list}
        return data_list + [self._background(image) for image in image_list if image['img_id'] not in annotated]

    def _background(self, image: dict) -> dict:
        count = self.metainfo['num_keypoints']
        shapes = dict(bbox=(0, 4), bbox_score=0, keypoints=(0, count, 2), keypoints_visible=(0, count))
        nobody = {key: np.zeros(shape, dtype=np.float32) for key, shape in shapes.items()}
        return dict(
            img_id=image['img_id'], img_path=image['img_path'], id=[], raw_ann_info=None, invalid_segs=[], **nobody
        )


@DATASETS.register_module()
class BottomupCocoDataset(_BottomupMixin, CocoDataset):
    """Keypoints of COCO, bottom-up: mmpose's ``CocoDataset`` with ``keep_empty=False``.

    ``keep_empty=True`` lets images without a single annotation take part in training. An annotation with another number
    of keypoints than the dataset raises ``InputError``, which names file and annotation.
    """


@DATASETS.register_module()
class BottomupCrowdPoseDataset(_BottomupMixin, CrowdPoseDataset):
    """Keypoints of CrowdPose, bottom-up: mmpose's ``CrowdPoseDataset``, as :class:`BottomupCocoDataset`."""
