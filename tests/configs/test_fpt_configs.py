"""The recipes of FPT; what their authors set is in test_authors.py, here is what other backbones share of it."""

import pytest
from config_utils import CONFIGS, read_config

DETECTORS, SEGMENTERS = (
    sorted(path for path in CONFIGS.glob(names))
    for names in ('*/*_fpt-gn_ms-2x_coco.py', 'semantic_segmentation/ufp-fpt_*-d8_*.py')
)


def names(paths):
    return pytest.mark.parametrize('path', paths, ids=lambda path: path.stem)


@names(DETECTORS)
def test_detectors(path):
    cfg = read_config(path)
    assert cfg.model.neck.type == 'icconv_mm.FPT' and cfg.model.neck.get('norm_cfg', 'GN') == 'GN'
    name = path.stem.split('_')[0]
    authors = read_config(path.with_name(f'{"faster-rcnn" if name == "retinanet" else name}_r50_fpt-gn_ms-2x_coco.py'))
    for part in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        assert cfg[part].dataset == authors[part].dataset, part
    if 'roi_head' in cfg.model:
        for part in ('roi_head', 'rpn_head', 'train_cfg', 'test_cfg', 'neck'):
            assert cfg.model[part] == authors.model[part], part
        for part in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'default_hooks', 'train_dataloader'):
            assert cfg[part] == authors[part], part
    else:  # which they did not train
        assert cfg.train_cfg.max_epochs == 24
    # the weights of Caffe and Detectron read BGR as it is, ours normalised RGB
    assert cfg.model.data_preprocessor.bgr_to_rgb is ('pyconv' in path.stem or 'ic-r' in path.stem)
    if cfg.model.backbone.get('norm_cfg', {}).get('type', 'BN') == 'BN':
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
