"""The recipes of FPT: upstream's but for what the paper changes."""

import pytest
from config_utils import CONFIGS, is_former_name, read_config

DETECTORS, SEGMENTERS = (
    sorted(path for path in CONFIGS.glob(names) if not is_former_name(path))
    for names in ('*/*_fpt-gn_ms-2x_coco.py', 'semantic_segmentation/ufp-fpt_*-d8_*.py')
)


def names(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)


def test_every_recipe_is_there():
    found = {path.stem.removesuffix('_fpt-gn_ms-2x_coco').removesuffix('-seg') for path in DETECTORS}
    nets = ('r50', 'r101', 'r152', 'x101-32x8d', 'ic-r50-k9')
    assert found == {f'{arch}-rcnn_{net}' for arch in ('faster', 'mask') for net in nets} | {
        'retinanet_r50',
        'faster-rcnn_pyconv-r50',
    }
    assert {path.stem.split('_')[-1].split('-')[0] for path in SEGMENTERS} == {'ade20k', 'cityscapes', 'lip'}


@names(DETECTORS)
def test_detectors(path):
    cfg = read_config(path)
    assert cfg.model.neck.type == 'icconv_mm.FPT' and cfg.model.neck.get('norm_cfg', 'GN') == 'GN'
    train = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert train['RandomResize'].scale == [(1400, 400), (1400, 1200)]
    assert train['LoadAnnotations'].get('with_mask', False) == ('mask' in path.stem)
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        assert {step.type: step for step in loader.dataset.pipeline}['Resize'].scale == (1400, 1000)
    assert cfg.train_cfg.max_epochs == 24
    if 'roi_head' in cfg.model:
        assert cfg.model.roi_head.bbox_head.norm_cfg == {'type': 'GN', 'num_groups': 32}
    converted = 'detectron' in str(cfg.model.backbone.init_cfg.checkpoint)
    # Detectron's weights read BGR as it is, torchvision's and ours normalised RGB
    assert cfg.model.data_preprocessor.bgr_to_rgb is not converted
    if cfg.model.backbone.norm_cfg.type == 'BN' if 'norm_cfg' in cfg.model.backbone else True:
        assert cfg.model.backbone.norm_eval


@names(SEGMENTERS)
def test_segmentors(path):
    cfg = read_config(path)
    pyramid, fpt = cfg.model.neck
    assert cfg.model.backbone.output_stride == fpt.strides[0] == 8
    assert pyramid.kernel_sizes == (1, 7, 15, 31)
    assert len(set(fpt.strides)) == 1 and fpt.window == 5
    classes = {'ade20k': 150, 'cityscapes': 19, 'lip': 20}
    assert cfg.model.decode_head.num_classes == classes[path.stem.split('_')[-1].split('-')[0]]


def test_lip_flips_swap_the_sides():
    from mmseg.datasets import LIPDataset

    cfg = read_config(CONFIGS / 'semantic_segmentation/ufp-fpt_r101-d8_4xb4-80k_lip-473x473.py')
    flip = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomFlip')
    classes = LIPDataset.METAINFO['classes']
    for left, right in flip.swap_seg_labels:
        assert classes[left].replace('Left', 'Right') == classes[right]
    sided = [name for name in classes if name.startswith(('Left', 'Right'))]
    assert len(sided) == 2 * len(flip.swap_seg_labels)
