"""Fixtures of a small pose model; the conftest.py of a folder that uses them imports them."""

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
