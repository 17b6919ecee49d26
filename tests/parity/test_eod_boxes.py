"""A converted detector of EOD gives what EOD's own modules give, with the recipe that belongs to it."""

import sys
from types import SimpleNamespace

import pytest
import torch
from crc_fill import official_input, official_state_dict
from mmengine.config import Config
from mmengine.registry import MODELS, TASK_UTILS, init_default_scope
from reference import REPO, folder_of

from icconv_mm.checkpoints import convert_file

pytest.importorskip('mmdet.models')
from mmdet.structures import DetDataSample

TO_EDGES = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)  # from the first and last pixel of a box
CASES = {
    'eod_faster_ic-r50_w16': 'detection/faster-rcnn_ic-r50-k9_fpn_1x_coco',
    'eod_cascade-mask_ic-r50_w12': 'instance_segmentation/cascade-mask-rcnn_ic-r50-k9-seg_fpn_1x_coco',
}


def narrowed(recipe: str, meta: dict) -> dict:
    """The model of a recipe with the widths of a case."""
    cfg, settings = Config.fromfile(REPO / f'configs/{recipe}.py').model, meta['settings']
    cfg.backbone.update(
        base_channels=meta['backbone']['base_channels'],
        pattern=str(folder_of('eod', meta['case']) / meta['pattern_file']),
        init_cfg=None,
    )
    cfg.neck.update(in_channels=meta['backbone']['out_channels'], out_channels=settings['fpn'])
    cfg.rpn_head.update(in_channels=settings['fpn'], feat_channels=settings['fpn'])
    roi = cfg.roi_head
    for head in roi.bbox_head if settings['cascade'] else [roi.bbox_head]:
        head.update(in_channels=settings['fpn'], fc_out_channels=settings['fc'], num_classes=settings['classes'])
    for extractor in (roi.bbox_roi_extractor, roi.get('mask_roi_extractor', {})):
        extractor.update(out_channels=settings['fpn'])
        extractor.setdefault('roi_layer', {}).update(sampling_ratio=settings['sampling'])
    if settings['mask']:
        roi.mask_head.update(in_channels=settings['fpn'], conv_out_channels=settings['mask']['planes'])
        roi.mask_head.num_classes = settings['classes']
    return cfg


@pytest.fixture(scope='module', params=CASES)
def case(request, reference, tmp_path_factory):
    """A case's reference data, and the model with the case's converted file, in float64."""
    stored = reference('eod', request.param)
    folder = tmp_path_factory.mktemp('eod')
    state = official_state_dict(stored.meta)
    torch.save({'epoch': 14, 'model': {f'module.{key}': value for key, value in state.items()}}, folder / 'in.pth')
    pattern = str(folder_of('eod', request.param) / stored.meta['pattern_file'])
    init_default_scope('mmdet')
    model = MODELS.build(narrowed(CASES[request.param], stored.meta)).double().eval()
    convert_file(folder / 'in.pth', folder / 'out.pth', 'ic-conv', model=model, pattern=pattern)
    model.load_state_dict(torch.load(folder / 'out.pth', weights_only=True)['state_dict'], strict=True)
    return stored, model


@pytest.fixture
def double_nms(monkeypatch):
    """The suppression of float64 boxes, which mmcv's kernel for the CPU does not take."""
    from torchvision.ops import nms

    kernels = SimpleNamespace(nms=lambda boxes, scores, iou_threshold, offset: nms(boxes, scores, iou_threshold))
    monkeypatch.setattr(sys.modules['mmcv.ops.nms'], 'ext_module', kernels)


@pytest.fixture(scope='module')
def maps(case):
    stored, model = case
    with torch.no_grad():
        stages = model.backbone(official_input(stored.meta))
        return stages, model.neck(stages)


def deviation(stored, name, value):
    info = stored.meta['tensors'][name]
    assert list(value.shape) == info['full_shape'], name
    if value.ndim == 4:
        value = value[:, :: info['channel_stride'], :: info['spatial_stride'] or 1, :: info['spatial_stride'] or 1]
    return stored.deviation(name, value)


def samples_of(meta):
    sizes = meta['image_sizes']
    shape = tuple(meta['input_shape'][2:])
    return [
        DetDataSample(
            metainfo=dict(
                img_shape=tuple(size), ori_shape=tuple(size), batch_input_shape=shape, scale_factor=(1.0, 1.0)
            )
        )
        for size in sizes
    ]


def test_maps(case, maps):
    stored, _ = case
    stages, pyramid = maps
    tensors = {f'c{level}': stage for level, stage in enumerate(stages, 2)}
    tensors |= {f'p{level}': stage for level, stage in enumerate(pyramid, 2)}
    assert max(deviation(stored, name, value) for name, value in tensors.items()) < 1e-6


def test_logits_of_the_rpn(case, maps):
    stored, model = case
    with torch.no_grad():
        logits, boxes = model.rpn_head(maps[1])
    for level, (cls, loc) in enumerate(zip(logits, boxes), 2):
        assert deviation(stored, f'rpn_loc_p{level}', loc) < 1e-6
        if stored.meta['settings']['rpn'] == 'sigmoid':
            assert deviation(stored, f'rpn_cls_p{level}', cls) < 1e-6


def test_logits_of_the_heads(case, maps):
    stored, model = case
    rois = torch.from_numpy(stored['rois']).double()
    rois[:, 1:] += TO_EDGES
    roi, levels = model.roi_head, maps[1][:4]
    stages = enumerate(roi.bbox_head) if stored.meta['settings']['cascade'] else [('', roi.bbox_head)]
    with torch.no_grad():
        for stage, head in stages:
            extractor = roi.bbox_roi_extractor if stage == '' else roi.bbox_roi_extractor[stage]
            cls, loc = head(extractor(levels, rois))
            name = '' if stage == '' else f'_{stage}'
            assert deviation(stored, f'cls{name}', cls.roll(1, 1)) < 1e-6
            if head.reg_class_agnostic:
                assert deviation(stored, f'loc{name}', loc) < 1e-6
            else:
                logits, expected = stored.pair(f'loc{name}', torch.cat([loc.new_zeros(len(loc), 4), loc], 1))
                placed = logits != 0  # but for the boxes of the background, which mmdet does not have
                assert placed.mean() > 0.9 and abs(logits - expected)[placed].max() < 1e-6 * abs(expected).max()
        if roi.with_mask:
            masks = [roi._mask_forward(stage, levels, rois)['mask_preds'] for stage in range(3)]
            assert all(deviation(stored, 'mask', mask) < 1e-6 for mask in masks)


def test_proposals(case, maps, double_nms):
    stored, model = case
    with torch.no_grad():
        proposals = model.rpn_head.predict(maps[1], samples_of(stored.meta), rescale=False)
    images = torch.arange(len(proposals)).repeat_interleave(len(proposals[0].bboxes))
    boxes, scores = (torch.cat([instances[name] for instances in proposals]) for name in ('bboxes', 'scores'))
    rows = torch.cat([images[:, None], boxes - TO_EDGES, scores[:, None]], 1)
    proposals, expected = stored.pair('proposals', rows)  # their scores hold the difference of an RPN with softmax
    assert abs(proposals - expected).max() < 1e-6


def test_detections(case, maps, double_nms):
    """Of the whole network; masks are pasted in float32 alone."""
    stored, model = case
    samples, roi = samples_of(stored.meta), model.roi_head
    with torch.no_grad():
        proposals = model.rpn_head.predict(maps[1], samples, rescale=False)
        metas = [sample.metainfo for sample in samples]
        results = roi.predict_bbox(maps[1], metas, proposals, roi.test_cfg)
    expected = torch.from_numpy(stored['detections']).double()
    for image, instances in enumerate(results):
        rows = expected[expected[:, 0] == image]
        assert len(rows) == 100 and torch.equal(instances.labels, rows[:, 6].long() - 1)
        assert (instances.bboxes - TO_EDGES - rows[:, 1:5]).abs().max() < 1e-6
        assert (instances.scores - rows[:, 5]).abs().max() < 1e-6


def test_anchors(case):
    stored, model = case
    generator = model.rpn_head.prior_generator
    for (stride, _), anchors in zip(generator.strides, generator.base_anchors):
        expected = torch.tensor(stored.meta['anchors_of_a_cell'][str(stride)])
        assert torch.equal(anchors, expected + TO_EDGES.float())


def test_anchors_of_several_scales_are_in_mmdets_order():
    init_default_scope('mmdet')
    options = dict(strides=[16], ratios=[1.0, 2.0], scales=[2, 4])
    ours = TASK_UTILS.build(dict(type='icconv_mm.EODAnchorGenerator', **options)).base_anchors[0]
    theirs = TASK_UTILS.build(dict(type='AnchorGenerator', **options)).base_anchors[0]
    assert ours.shape == theirs.shape and (ours - theirs - 8).abs().max() < 3


def coder(**options):
    init_default_scope('mmdet')
    return TASK_UTILS.build(dict(type='icconv_mm.EODBBoxCoder', **options))


def test_a_box_may_shrink_and_keeps_a_pixel():
    boxes = torch.tensor([[10.0, 10.0, 30.0, 40.0], [90.0, 90.0, 98.0, 98.0], [-40.0, -40.0, -30.0, -30.0]])
    deltas = torch.tensor([[0.0, 0.0, -10.0, 10.0], [5.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    decoded = coder().decode(boxes, deltas, max_shape=(100, 120))
    assert decoded[0, 2] - decoded[0, 0] == pytest.approx(20 * torch.tensor(-10.0).exp().item(), rel=1e-2)
    assert decoded[0, [1, 3]].tolist() == [0, 100]  # at most 1000 / 16 times as high
    assert decoded[1].tolist() == [119, 99, 120, 100]
    assert decoded[2].tolist() == [0, 0, 1, 1]


def test_decoding_several_classes_is_mmdets_where_nothing_is_clipped():
    init_default_scope('mmdet')
    options = dict(target_stds=[0.1, 0.1, 0.2, 0.2], target_means=[0.01, 0.0, 0.0, 0.02])
    boxes = torch.rand(7, 4) * 50 + torch.tensor([0.0, 0.0, 60.0, 60.0])
    deltas = torch.randn(7, 12)
    theirs = TASK_UTILS.build(dict(type='DeltaXYWHBBoxCoder', **options))
    torch.testing.assert_close(coder(**options).decode(boxes, deltas), theirs.decode(boxes, deltas))
    assert coder(**options).decode(boxes[:0], deltas[:0], max_shape=(9, 9)).shape == (0, 12)
