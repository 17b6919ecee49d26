"""Deployed models as a whole: detectors, segmentors, pose estimators, classifiers, and their necks."""

from pathlib import Path

import pytest
import torch
from deployed_checks import assert_same, checked, norms, trained
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from icconv_mm import deploy
from icconv_mm.necks import FPT, SEPC, PConv
from icconv_tools.demo.configs import use_backbone

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# config -> norms that are left
MODELS_BY_TASK = {
    'detection/faster-rcnn_ic-r18_fpn_miniature.py': 0,
    'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py': 0,
    'semantic_segmentation/fpn_ic-r18_miniature.py': 0,
    'semantic_segmentation/pyconvsegnet_pyconv-r18_miniature.py': 0,
    'pose/ae_ic-r18_miniature.py': 0,
}
BACKBONES = ['ic_resnet18', 'pyconv_resnet18']


def build(config: str, backbone: str) -> torch.nn.Module:
    cfg = Config.fromfile(CONFIGS / config, import_custom_modules=False)
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    use_backbone(cfg, Config.fromfile(CONFIGS / f'_base_/backbones/{backbone}.py').backbone.to_dict())
    cfg.model.backbone.init_cfg = None
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    return MODELS.build(cfg.model)


def tensors(model: torch.nn.Module, x: torch.Tensor) -> object:
    """What the network computes before boxes, masks or people are decoded from it."""
    if hasattr(model, 'rpn_head'):
        levels = model.extract_feat(x)
        rois = torch.tensor([[0, 2.0, 3, 40, 60], [0, 30, 8, 90, 50], [0, 0, 0, 95, 95]])
        extract = model.roi_head.bbox_roi_extractor
        regions = extract(levels[: extract.num_inputs], rois)
        return [levels, model.rpn_head(levels), regions, model.roi_head.bbox_head(regions)]
    return model(x, None, mode='tensor')


@pytest.mark.parametrize('backbone', BACKBONES)
@pytest.mark.parametrize('config', MODELS_BY_TASK)
def test_a_whole_model(config, backbone):
    model = trained(build(config, backbone))
    deployed = deploy(model)
    assert type(deployed) is type(model) and len(norms(model)) > 15
    assert len(norms(deployed)) == MODELS_BY_TASK[config]
    side = 144 if 'pyconvseg' in config else 96
    x = torch.randn(1, 3, side, side)
    assert_same(model, deployed, call=lambda module: tensors(module, x))
    with pytest.raises(RuntimeError, match='cannot be trained'):
        deployed.train()


DETECTORS = [
    'detection/retinanet_ic-r50-k9_fpn_1x_coco.py',
    'detection/faster-rcnn_pyconv-hgr50_fpn_1x_coco.py',
    'instance_segmentation/mask-rcnn_ic-r50-k9-seg_fpt-gn_ms-2x_coco.py',
    'detection/retinanet_r50_fpn-sepc_4xb4-1x_coco.py',  # mmdet's own backbone
]


@pytest.mark.slow
@pytest.mark.parametrize('config', DETECTORS)
def test_detectors_of_50_layers(config):
    pytest.importorskip('mmdet')
    cfg = Config.fromfile(CONFIGS / config, import_custom_modules=False)
    init_default_scope('mmdet')
    if 'pattern' in cfg.model.backbone:
        cfg.model.backbone.pattern = 'geometric_d4'
    cfg.model.backbone.init_cfg = None
    model = trained(revert_sync_batchnorm(MODELS.build(cfg.model)))
    deployed = deploy(model)
    assert not [name for name in norms(deployed) if name.startswith(('backbone', 'neck'))]
    x = torch.randn(1, 3, 384, 384) if 'sepc' in config else torch.randn(1, 3, 128, 160)
    assert_same(model, deployed, call=lambda module: module.extract_feat(x))


# --- necks

SIZES = [(17, 20), (9, 10), (5, 5), (3, 3)]
DEFORMABLE = {'pconv_deform': True, 'lcconv_deform': True}


def pyramid() -> list[torch.Tensor]:
    return [torch.randn(2, 4, *size) for size in SIZES]


@pytest.mark.parametrize('sync', [False, True], ids=['iBN', 'synchronised'])
@pytest.mark.parametrize(
    ('kind', 'settings'),
    [
        (PConv, {}),
        (PConv, {'pconv_deform': True}),
        (SEPC, {}),
        (SEPC, {'branches': 'reg', 'lcconv_padding': 1}),
        (SEPC, DEFORMABLE),
    ],
    ids=str,
)
def test_integrated_batch_norm_is_folded(kind, settings, sync):
    neck = kind(4, 6, 4, ibn=True, sync_ibn=sync, **settings)
    with torch.no_grad():
        for name, parameter in neck.named_parameters():
            if 'conv' in name:
                parameter.normal_(std=0.2)
    deployed = checked(neck, pyramid())
    assert len(norms(neck)) > 3 and not norms(deployed)
    with pytest.raises(RuntimeError, match='cannot be trained'):
        deployed.train()


def test_a_pyramid_without_norms_stays():
    with pytest.warns(UserWarning, match='deploy: SEPC has no norm to fold'):
        checked(SEPC(4, 6, 4), pyramid())


def test_fpt():
    neck = FPT([8] * 4, 16, drop_prob=0.0, norm_cfg={'type': 'BN'})
    left = norms(checked(neck, [torch.randn(1, 8, *size) for size in ((16, 16), (8, 8), (4, 4), (2, 2))]))
    assert not left
