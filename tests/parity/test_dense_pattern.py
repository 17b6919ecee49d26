"""The dense pattern is the library's own network: equal outputs and losses, whatever operators a head calls."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from deployed_checks import trained
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData

from icconv_mm.compat import init_weights
from icconv_mm.config_tree import walk_dicts
from icconv_mm.registry import MODELS

structures = pytest.importorskip('mmdet.structures')
pytest.importorskip('mmseg')

# A config of each family whose neck, head or losses call operators of mmcv, as functions or layers, or view their maps,
# if the operators exist on CPUs (CARAFE and the masked convolution of guided anchoring do not)
DETECTORS = [
    pytest.param('cascade_rpn/cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco', marks=pytest.mark.slow),
    'centernet/centernet_r18-dcnv2_8xb16-crop512-140e_coco',
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco',
    'dyhead/atss_r50_fpn_dyhead_1x_coco',
    'foveabox/fovea_r50_fpn_gn-head-align_4xb4-2x_coco',
    'groie/faste-rcnn_r50_fpn_groie_1x_coco',
    'mask2former/mask2former_r50_8xb2-lsj-50e_coco',
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco',
    'nas_fcos/nas-fcos_r50-caffe_fpn_nashead-gn-head_4xb4-1x_coco',
    'point_rend/point-rend_r50-caffe_fpn_ms-1x_coco',
    'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco',
    'retinanet/retinanet_r50_fpn_1x_coco',
    'solov2/solov2-light_r50-dcn_fpn_ms-3x_coco',
    'tood/tood_r50_fpn_1x_coco',
    'vfnet/vfnet_r50-mdconv-c3-c5_fpn_ms-2x_coco',
]
SEGMENTORS = ['dmnet/dmnet_r50-d8_4xb4-80k_ade20k-512x512', 'point_rend/pointrend_r50_4xb4-160k_ade20k-512x512']
SIDE = 128
FEW = dict(nms_pre=50, max_per_img=20, num=16)


def configs_of(library: str) -> Path:
    return Path(__import__(library).__file__).parent / '.mim' / 'configs'


def shrunk(cfg, width: int = 16):
    """A config with a narrow backbone: its widths are divided, and those that other parts expect of it."""
    cfg.backbone.update(base_channels=width, stem_channels=width, norm_eval=True, init_cfg=None)
    cfg.backbone.get('norm_cfg', {}).pop('eps', None)  # NAS-FCOS has 0, which torch refuses by now
    wide = [64, 128, 256, 512] if cfg.backbone.depth < 50 else [256, 512, 1024, 2048]

    def narrow(value):
        if isinstance(value, (list, tuple)):
            return [narrow(item) for item in value]
        return value * width // 64 if value in wide else value

    if 'neck' in cfg:
        for part in cfg.neck if isinstance(cfg.neck, list) else [cfg.neck]:
            if part is cfg.neck or part is cfg.neck[0]:
                for name in ('in_channels', 'in_channel'):
                    if name in part:
                        part[name] = narrow(part[name])
    for settings in walk_dicts(cfg):  # few regions
        settings.update({name: least for name, least in FEW.items() if name in settings})
    if isinstance(cfg.get('panoptic_head', None), dict):
        cfg.panoptic_head.in_channels = narrow(cfg.panoptic_head.in_channels)
    return cfg


def both(library: str, cfg) -> list[torch.nn.Module]:
    """The library's model and ours by one line, with equal weights in which nothing is zero."""
    ours = deepcopy(cfg)
    backbone = ours.get('backbone', ours)
    kind = 'ICResNetV1c' if backbone.type == 'ResNetV1c' else 'ICResNet'
    backbone.update(type=f'icconv_mm.{kind}', pattern='dense')
    with DefaultScope.overwrite_default_scope(library):
        models = [MODELS.build(config) for config in (cfg, ours)]
    torch.manual_seed(0)
    init_weights(models[0])
    for name, parameter in trained(models[0]).named_parameters():
        if 'offset' in name or 'reppoints' in name:  # zeros at first: everything would be sampled on pixels
            torch.nn.init.normal_(parameter, std=0.02)
    models[1].load_state_dict(models[0].state_dict())
    return models


def samples():
    size = (SIDE, SIDE)
    names = ('img_shape', 'ori_shape', 'batch_input_shape', 'pad_shape')
    sample = structures.DetDataSample(
        metainfo=dict.fromkeys(names, size) | {'scale_factor': (1.0, 1.0), 'border': (0, SIDE, 0, SIDE)}
    )
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.uint8)
    masks[0, 10:60, 20:70] = masks[1, 40:120, 30:100] = 1
    boxes = torch.tensor([[20.0, 10, 70, 60], [30, 40, 100, 120]])
    bitmaps = structures.mask.BitmapMasks(masks.numpy(), *size)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 3]), masks=bitmaps)
    return [sample]


def flat(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value.float()]
    items = value.values() if hasattr(value, 'values') else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in flat(item)]


def agree(models, call) -> None:
    outputs = []
    for model in models:
        torch.manual_seed(0)  # samplers and dropout draw
        outputs.append(flat(call(model)))
    assert len(outputs[0]) == len(outputs[1]) > 0
    for one, other in zip(*outputs):
        assert one.shape == other.shape and torch.isfinite(one).all()
        assert (one - other).abs().max() <= 1e-4 * one.abs().max().clamp(min=1), (one, other)


@pytest.mark.parametrize('config', DETECTORS)
def test_detectors(config):
    models = both('mmdet', shrunk(Config.fromfile(configs_of('mmdet') / f'{config}.py').model))
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    MessageHub.get_current_instance().update_info('epoch', 0)  # for TOOD
    with torch.no_grad():
        agree(models, lambda model: model.train()(image, samples(), mode='loss'))
        agree(models, lambda model: model.eval()(image, samples(), mode='tensor'))


@pytest.mark.parametrize('config', SEGMENTORS)
def test_segmentors(config):
    cfg = Config.fromfile(configs_of('mmseg') / f'{config}.py').model
    cfg.update(pretrained=None, auxiliary_head=None, data_preprocessor=None)
    cfg.backbone.update(norm_eval=True, norm_cfg=dict(type='BN'))
    heads = cfg.decode_head if isinstance(cfg.decode_head, list) else [cfg.decode_head]
    for part in [*heads, *([cfg.neck] if 'neck' in cfg else [])]:
        part.update({name: dict(type='BN') for name in ('norm_cfg',) if name in part})
    models = both('mmseg', cfg)
    image = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        agree(models, lambda model: model.eval().predict(image)[0].seg_logits.data)


@torch.no_grad()
def test_a_refinement_that_samples_rotated_boxes():
    """The refinement of R3Det: each pixel's features are those at five points of the box that it predicts."""
    ops = pytest.importorskip('mmcv.ops')
    cfg = Config(dict(backbone=dict(type='ResNet', depth=18, base_channels=16, out_indices=(1,))))
    before, after = both('mmdet', cfg.backbone)
    image, conv = torch.randn(1, 3, SIDE, SIDE), torch.nn.Conv2d(32, 5, 1)

    def refined(net):
        (x,) = net(image)
        boxes = conv(x).permute(0, 2, 3, 1).reshape(-1, 5).mul(10).add(20)
        return x + ops.rotated_feature_align(x, boxes, 1 / 8, 5)

    after.eval()
    agree([before, after], refined)
