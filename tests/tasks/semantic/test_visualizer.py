"""The demo's classes in mmseg's inferencer, which takes those of Cityscapes unless told otherwise."""

import numpy as np
import pytest
import torch
from mmengine.config import Config

pytest.importorskip('mmseg.apis')


def test_the_inferencer_finds_the_demos_classes(repo, tmp_path):
    from mmengine.registry import MODELS, init_default_scope
    from mmseg.apis import MMSegInferencer

    cfg = Config.fromfile(repo / 'configs/semantic_segmentation/fpn_ic-r18_miniature.py')
    init_default_scope('mmseg')
    cfg.dump(tmp_path / 'config.py')
    weights = {'state_dict': MODELS.build(cfg.model).state_dict(), 'meta': {'dataset_meta': dict(cfg.metainfo)}}
    torch.save(weights, tmp_path / 'demo.pth')
    inferencer = MMSegInferencer(str(tmp_path / 'config.py'), str(tmp_path / 'demo.pth'), device='cpu')
    assert tuple(inferencer.visualizer.dataset_meta['classes']) == cfg.metainfo.classes
    assert inferencer.visualizer.dataset_meta['palette'] == cfg.metainfo.palette
    drawn = inferencer(np.zeros((64, 64, 3), np.uint8), return_vis=True)
    assert drawn['visualization'].shape == (64, 64, 3) and drawn['predictions'].max() < 7


def test_what_the_caller_names_goes_before():
    from icconv_mm.tasks.semantic import SegVisualizer

    visualizer = SegVisualizer(name='own', classes=['a', 'b'], palette=[(0, 0, 0), (9, 9, 9)])
    visualizer.set_dataset_meta(dataset_name='ade20k')
    assert len(visualizer.dataset_meta['classes']) == 150
    visualizer.set_dataset_meta(['c'], [(1, 1, 1)])
    assert visualizer.dataset_meta == {'classes': ['c'], 'palette': [(1, 1, 1)]}
    visualizer.set_dataset_meta()
    assert visualizer.dataset_meta['classes'] == ['a', 'b']
