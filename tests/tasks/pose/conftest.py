"""Fixtures of the pose task, with those of the small pose model."""

import numpy as np
import pytest
from pose_fixtures import mmpose, model, model_cfg

__all__ = ['mmpose', 'model', 'model_cfg']


@pytest.fixture
def coco_meta(mmpose):
    """Joints, flip pairs, skeleton and colours of COCO."""
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    return parse_pose_metainfo(dict(from_file='configs/_base_/datasets/coco.py'))


@pytest.fixture
def sample(coco_meta):
    """What mmpose's dataset hands to the pipeline: an image of 150 x 100 with two people and a crowd."""
    image = np.random.RandomState(0).randint(0, 256, (100, 150, 3), dtype=np.uint8)
    keypoints = np.random.RandomState(1).uniform((40, 30), (110, 70), (3, 17, 2)).astype(np.float32)
    visible = np.ones((3, 17), dtype=np.float32)
    visible[1, ::2] = 0
    visible[2] = 0
    return dict(
        coco_meta,
        img=image,
        img_shape=(100, 150),
        ori_shape=(100, 150),
        img_id=7,
        img_path='seven.jpg',
        id=[1, 2, 3],
        category_id=[1, 1, 1],
        keypoints=keypoints,
        keypoints_visible=visible,
        bbox=np.array([[40, 30, 110, 70]] * 3, dtype=np.float32),
        bbox_score=np.ones(3, dtype=np.float32),
        area=np.ones(3, dtype=np.float32),
        invalid_segs=[[[10, 60, 60, 60, 60, 90, 10, 90]]],
    )
