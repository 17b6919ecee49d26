"""Fixtures of a small pose model; the conftest.py of a folder that uses them imports them."""

import numpy as np
import pytest


@pytest.fixture(scope='session')
def mmpose():
    """mmpose with its modules registered; the test skips where it is not installed."""
    module = pytest.importorskip('mmpose')
    from mmengine.registry import init_default_scope

    import icconv_mm.tasks.pose  # noqa: F401

    init_default_scope('mmpose')
    return module


@pytest.fixture
def model_cfg(mmpose):
    """A small pose model for the 17 keypoints of COCO in images of 64 pixels."""
    return dict(
        type='icconv_mm.AEPoseEstimator',
        data_preprocessor=dict(
            type='icconv_mm.MultiScaleDataPreprocessor', mean=[120.0, 110, 100], std=[60.0, 50, 40], bgr_to_rgb=True
        ),
        backbone=dict(type='icconv_mm.ICResNet', depth=18, pattern='geometric_d4', base_channels=8, out_indices=(3,)),
        head=dict(
            type='icconv_mm.AEHead',
            in_channels=64,
            num_keypoints=17,
            deconv_out_channels=(8, 8, 8),
            decoder=dict(type='icconv_mm.AECodec', input_size=(64, 64), heatmap_size=(16, 16)),
        ),
        test_cfg=dict(flip_test=True),
    )


@pytest.fixture
def model(model_cfg):
    """The model of ``model_cfg`` whose heatmaps are lively enough that an untrained network finds people."""
    import torch
    from mmpose.registry import MODELS

    model = MODELS.build(model_cfg)
    model.init_weights()
    for layer in (*model.head.deconv_layers[::3], model.head.final_layer):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return model.eval()


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
