"""Test pipelines of the bottom-up recipes, run as they stand."""

import cv2
import numpy as np
import pytest
from config_utils import CONFIGS, read_config
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS, init_default_scope

RECIPES = sorted((CONFIGS / 'pose').glob('ae_*640x640*.py'))
MULTI_SCALE = [path for path in RECIPES if path.stem.endswith('_ms-test')]


@pytest.fixture(autouse=True)
def mmpose():
    pytest.importorskip('mmpose')
    init_default_scope('mmpose')


def packed(cfg, folder, size=(150, 100)):
    """What the test pipeline of a config makes of a random image of ``size`` (width, height)."""
    from mmpose.datasets.datasets.utils import parse_pose_metainfo

    path = str(folder / 'image.png')
    cv2.imwrite(path, np.random.RandomState(0).randint(0, 256, (*size[::-1], 3), dtype=np.uint8))
    dataset = cfg.test_dataloader.dataset
    name = 'crowdpose' if 'CrowdPose' in dataset.type else 'coco'
    meta = parse_pose_metainfo(dict(from_file=f'configs/_base_/datasets/{name}.py'))
    pipeline = Compose([TRANSFORMS.build(transform) for transform in dataset.pipeline])
    return pipeline({**meta, 'img_path': path, 'img_id': 1, 'id': []})


@pytest.mark.parametrize('path', MULTI_SCALE, ids=lambda path: path.stem)
def test_multi_scale_config_is_its_recipe_with_tta(path):
    from icconv_mm.app.adapters.pose import Adapter

    multi_scale, recipe = read_config(path), read_config(path.with_name(path.name.replace('_ms-test', '')))
    for cfg in (multi_scale, recipe):
        cfg.pop('test_pipeline')  # a name that only the config file itself reads
    assert multi_scale.to_dict() != recipe.to_dict()
    Adapter().enable_tta(recipe)
    assert multi_scale.to_dict() == recipe.to_dict()


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_pipeline_lays_out_the_published_sizes(path, tmp_path):
    """640 x 640, sides rounded up to 64 at the smallest scale."""
    packs = packed(read_config(path), tmp_path)
    if path in MULTI_SCALE:
        sizes, scales = [(1280, 2048), (640, 1024), (320, 512)], (2, 1, 0.5)
    else:
        sizes, scales = [(640, 960)], (1,)
    assert [tuple(image.shape[1:]) for image in packs['inputs']] == sizes
    assert packs['data_samples'].test_scales == scales
    joints = 14 if 'crowdpose' in path.stem else 17
    assert len(packs['data_samples'].flip_indices) == joints == read_config(path).model.head.num_keypoints
