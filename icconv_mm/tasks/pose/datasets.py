"""mmpose's datasets with a check of the annotations and, on request, with images without people."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmpose.datasets.datasets import CocoDataset, CrowdPoseDataset

from icconv_mm.annotations.checks import check_once, location_of, pose_defect, warn_of_lost_people
from icconv_mm.annotations.reading import no_garbage_search
from icconv_mm.annotations.segmentations import segmentation_defect
from icconv_mm.annotations.skeleton import keypoint_metainfo, read_keypoints
from icconv_mm.errors import InputError
from icconv_mm.registry import DATASETS


class _Kept(dict):
    """An annotation that mmpose's deep copy takes as it is: number by number, it takes half of the time."""

    def __deepcopy__(self, memo: dict) -> dict:
        return dict(self)


class BottomupMixin:
    """What is added to mmpose's COCO-style datasets.

    Their ``metainfo`` may be as short as :func:`keypoint_metainfo`'s. Its ``keypoints`` may name a JSON file of it.

    Args:
        keep_empty: Whether images without a single annotation take part in training, as pure background.
        *args, **kwargs: Arguments of the dataset; ``data_mode`` is 'bottomup'.

    In training ``raw_ann_info`` is None for each person, and ``segmentation`` holds regions that are masked alone.

    Raises:
        InputError: If an annotation has another number of keypoints than the dataset, keypoints without a box, the id
            of another, or a segmentation that is none of its image, naming file, image and annotation.
    """

    def __init__(self, *args, keep_empty: bool = False, data_mode: str = 'bottomup', **kwargs):
        self.keep_empty = keep_empty
        super().__init__(*args, data_mode=data_mode, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo: Mapping[str, Any] | None = None) -> dict:
        return super()._load_metainfo(metainfo and keypoint_metainfo(read_keypoints(metainfo)))

    def load_data_list(self) -> list[dict]:
        """What mmpose reads: an entry for each image."""
        with no_garbage_search():
            return super().load_data_list()

    def parse_data_info(self, raw_data_info: dict) -> dict | None:
        # A segmentation that is null ends mmpose's joining of people where others have one.
        annotation = _Kept((key, value) for key, value in raw_data_info['raw_ann_info'].items() if value is not None)
        annotation.setdefault('segmentation', [])
        expected = self._metainfo['num_keypoints']  # the property copies all of it
        found = len(annotation.get('keypoints', ()))
        if 'keypoints' in annotation and found != 3 * expected:
            raise InputError(
                f'{self.ann_file}: annotation {annotation.get("id")} of image {annotation.get("image_id")} has '
                f'{found} values in "keypoints", expected {3 * expected} (x, y, visibility of {expected} keypoints)'
            )
        image, problem = raw_data_info['raw_img_info'], pose_defect(annotation) if found else None
        info = None if problem else super().parse_data_info({**raw_data_info, 'raw_ann_info': annotation})
        segmentation = annotation['segmentation']
        if info and not self.test_mode:  # in training nobody reads these, which take most of the memory
            info.update(raw_ann_info=None, segmentation=[])
        if info and segmentation and not self._is_valid_instance(info):  # but for regions, which it masks
            info['segmentation'] = segmentation
            problem = segmentation_defect(segmentation, image['height'], image['width'])
        if problem is not None:
            raise InputError(f'{location_of(annotation, image, self.ann_file)}: {problem}')
        return info

    def _get_bottomup_data_infos(self, instance_list: Sequence[dict], image_list: Sequence[dict]) -> list[dict]:
        check_once(self.coco.dataset, self.ann_file)  # who shares an id has been given another one's keypoints
        warn_of_lost_people(self.coco.dataset, self.ann_file)
        data_list = super()._get_bottomup_data_infos(instance_list, image_list)
        if self.keep_empty and not self.test_mode:
            annotated = {info['img_id'] for info in data_list}
            data_list += [self._background(image) for image in image_list if image['img_id'] not in annotated]
        sizes = {image['img_id']: {side: image.get(side) for side in ('height', 'width')} for image in image_list}
        return [{**info, **sizes[info['img_id']]} for info in data_list]  # to compare the image with when it is read

    def _background(self, image: dict) -> dict:
        count = self.metainfo['num_keypoints']
        shapes = dict(bbox=(0, 4), bbox_score=0, keypoints=(0, count, 2), keypoints_visible=(0, count))
        nobody = {key: np.zeros(shape, dtype=np.float32) for key, shape in shapes.items()}
        return dict(
            img_id=image['img_id'], img_path=image['img_path'], id=[], raw_ann_info=None, invalid_segs=[], **nobody
        )


@DATASETS.register_module()
class BottomupCocoDataset(BottomupMixin, CocoDataset):
    """Keypoints of COCO, bottom-up: mmpose's ``CocoDataset`` with ``keep_empty=False``.

    ``keep_empty=True`` lets images without a single annotation take part in training. An annotation with another number
    of keypoints than the dataset raises ``InputError``, which names file and annotation.
    """


@DATASETS.register_module()
class BottomupCrowdPoseDataset(BottomupMixin, CrowdPoseDataset):
    """Keypoints of CrowdPose, bottom-up: mmpose's ``CrowdPoseDataset``, as :class:`BottomupCocoDataset`."""
