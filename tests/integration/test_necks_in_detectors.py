"""The necks in mmdet's own configs, one per family: a training step and a prediction, or a refusal in one message."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope

from icconv_mm.errors import UserError

mmdet = pytest.importorskip('mmdet.models')
pytestmark = pytest.mark.slow

PAIRS = r"SEPC with branches='both' gives a pair .* the towers .* of an icconv_mm\.SplitFeatureHead read it"
TOWERS = r'SplitFeatureHead: \w+ needs two towers .*_convs: none'
# config -> (side of the images, what SEPC with SplitFeatureHead is refused with)
FAMILIES = {
    'atss/atss_r50_fpn_1x_coco.py': (64, None),
    'autoassign/autoassign_r50-caffe_fpn_1x_coco.py': (64, None),
    'cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py': (64, PAIRS),
    'condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py': (64, PAIRS),
    'ddod/ddod_r50_fpn_1x_coco.py': (288, None),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco.py': (64, TOWERS),
    'dino/dino-4scale_r50_8xb2-12e_coco.py': (64, TOWERS),
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py': (64, None),
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py': (64, PAIRS),
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py': (64, None),
    'foveabox/fovea_r50_fpn_4xb4-1x_coco.py': (64, None),
    'free_anchor/freeanchor_r50_fpn_1x_coco.py': (64, None),
    'fsaf/fsaf_r50_fpn_1x_coco.py': (64, None),
    'gfl/gfl_r50_fpn_1x_coco.py': (64, None),
    'libra_rcnn/libra-retinanet_r50_fpn_1x_coco.py': (64, None),
    'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': (64, PAIRS),
    'paa/paa_r50_fpn_1x_coco.py': (64, None),
    'pafpn/faster-rcnn_r50_pafpn_1x_coco.py': (64, PAIRS),
    'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py': (64, PAIRS),
    'pisa/retinanet-r50_fpn_pisa_1x_coco.py': (64, None),
    'reppoints/reppoints-bbox_r50_fpn-gn_head-gn-grid_1x_coco.py': (64, None),
    'reppoints/reppoints-moment_r50_fpn_1x_coco.py': (288, None),
    'retinanet/retinanet_r50_fpn_1x_coco.py': (64, None),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py': (64, None),
    'rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py': (64, PAIRS),
    'sabl/sabl-retinanet_r50_fpn_1x_coco.py': (64, None),
    'solo/solo_r50_fpn_1x_coco.py': (64, PAIRS),
    'solov2/solov2-light_r50_fpn_ms-3x_coco.py': (64, PAIRS),
    'tood/tood_r50_fpn_1x_coco.py': (64, TOWERS),
    'vfnet/vfnet_r50_fpn_1x_coco.py': (64, None),
    'yolact/yolact_r50_1xb8-55e_coco.py': (64, TOWERS),
}
OF_FPT = ('in_channels', 'out_channels', 'num_outs', 'start_level', 'add_extra_convs', 'relu_before_extra_convs')


def small_model(config):
    """The model of a config with a narrow IC-ResNet-18, few proposals and few queries; its necks as a list."""
    model = Config.fromfile(Path(mmdet.__path__[0]).parent / '.mim/configs' / config).model
    model.neck = model.neck if isinstance(model.neck, list) else [model.neck]
    levels = len(model.neck[0].in_channels)
    stages = tuple(range(4 - levels, 4))
    model.backbone = dict(
        type='icconv_mm.ICResNet', depth=18, pattern='geometric_d4', base_channels=8, out_indices=stages
    )
    model.neck[0].in_channels = [8 * 2**stage for stage in stages]
    for cfg in ((model.get('train_cfg') or {}).get('rpn_proposal'), (model.get('test_cfg') or {}).get('rpn')):
        if cfg:
            cfg.update(nms_pre=50, max_per_img=10)
    if model.get('num_queries', 0) > 20:
        model.num_queries = 20
    return model


def put_in(model, kind):
    """The neck ``kind`` after the model's own, or FPT in the place of the first."""
    first = model.neck[0]
    channels = first.out_channels
    if kind == 'FPT':
        options = {'num_outs': first.get('num_outs', len(first.in_channels)), 'add_extra_convs': 'on_input'}
        if 'FPN' in first.type:
            options = {}
        model.neck[0] = dict(type='icconv_mm.FPT', **{key: first[key] for key in OF_FPT if key in first} | options)
        return
    neck = dict(type=f'icconv_mm.{kind}', in_channels=channels, out_channels=channels, pconv_num=1)
    neck['num_outs'] = first.get('num_outs', len(first.in_channels))
    if kind == 'SEPC':
        neck['lcconv_padding'] = 1
        if 'bbox_head' in model:
            model.bbox_head = dict(
                type='icconv_mm.SplitFeatureHead', head_type=model.bbox_head.type,
                **{key: value for key, value in model.bbox_head.items() if key != 'type'},
            )  # fmt: skip
    model.neck.append(neck)


def step_and_prediction(model, side, masks):
    """The gradients of the last neck after a training step, as far as there are any; then a prediction."""
    from mmdet.testing import demo_mm_inputs

    MessageHub.get_current_instance().update_info('epoch', 0)  # which TOOD asks for
    shape = [(3, side, side)]
    options = {'num_classes': 3, 'with_mask': masks, 'with_semantic': type(model).__name__ == 'PanopticFPN'}
    data = demo_mm_inputs(2, 2 * shape, num_items=[2, 1], **options)
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    values = [value for key, value in losses.items() if 'loss' in key]
    sum(x.sum() for value in values for x in (value if isinstance(value, (list, tuple)) else [value])).backward()
    model.eval()
    data = demo_mm_inputs(1, shape, **options)
    with torch.no_grad():
        assert len(model(**model.data_preprocessor(data, False), mode='predict')) == 1
    neck = model.neck[-1] if isinstance(model.neck, torch.nn.Sequential) else model.neck
    return [p.grad for p in neck.parameters() if p.grad is not None]


@pytest.mark.parametrize('kind', ['PConv', 'SEPC', 'FPT'])
@pytest.mark.parametrize('config', FAMILIES)
def test_families_of_mmdet(config, kind):
    if config.startswith('paa'):
        pytest.importorskip('sklearn')
    init_default_scope('mmdet')
    side, refusal = FAMILIES[config]
    model = small_model(config)
    put_in(model, kind)

    def run():
        detector = revert_sync_batchnorm(MODELS.build(model))
        detector.init_weights()
        # RTMDet takes the masks of its data, where there are any, for tensors
        return step_and_prediction(detector.train(), side, masks='rtmdet_' not in config)

    if kind == 'SEPC' and refusal:
        with pytest.raises(UserError, match=refusal):
            run()
    else:
        grads = run()
        assert grads and all(grad.isfinite().all() for grad in grads) and any(grad.any() for grad in grads)


@pytest.mark.parametrize('kind', ['PConv', 'SEPC'])
def test_a_single_level_is_refused(kind):
    model = small_model('detr/detr_r50_8xb2-150e_coco.py')
    put_in(model, kind)
    with pytest.raises(UserError, match=rf'{kind}: num_outs: a pyramid has 2 levels or more, got 1'):
        MODELS.build(model.neck[-1])
