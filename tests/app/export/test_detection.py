"""Detectors decoded in fixed shapes find what mmdet finds."""

import importlib
from importlib.util import find_spec

import pytest
import torch
from skips import EXPORTS

pytest.importorskip('mmdet')
pytest.importorskip('mmcv.ops')
pytest.importorskip('onnxscript')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from icconv_mm.app.export.detection import DetectorOutputs
from icconv_mm.errors import InputError
from icconv_mm.files import configs_folder
from icconv_mm.registry import import_task

KINDS = {
    'retinanet': 'retinanet/retinanet_r50_fpn_1x_coco.py',
    'fsaf': 'fsaf/fsaf_r50_fpn_1x_coco.py',
    'freeanchor': 'free_anchor/freeanchor_r50_fpn_1x_coco.py',
    'atss': 'atss/atss_r50_fpn_1x_coco.py',
    'fcos': 'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'faster': 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'mask': 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'cascade': 'cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    'eod': 'cascade-mask-rcnn_ic-r50-k9-seg_fpn_1x_coco.py',  # of this package
}


def narrow(node):
    """A config of mmdet with ResNet-18 and 32 channels in neck and heads, and few proposals."""
    if isinstance(node, dict):
        for key, value in list(node.items()):
            if key in ('in_channels', 'feat_channels', 'out_channels', 'conv_out_channels', 'fc_out_channels'):
                node[key] = 32 if isinstance(value, int) else value
            elif key == 'max_per_img' or (key == 'nms_pre' and value > 0):
                node[key] = 40
            else:
                narrow(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            narrow(value)


def detector(kind):
    import_task('mmdet')
    init_default_scope('mmdet')
    path = configs_folder() / 'instance_segmentation' / KINDS[kind]
    cfg = (Config.fromfile(path) if path.is_file() else get_config(f'mmdet::{KINDS[kind]}')).model
    narrow(cfg)
    cfg.backbone = dict(type='ResNet', depth=18, norm_cfg=dict(type='BN'))
    cfg.neck.in_channels = [64, 128, 256, 512]
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    for name, module in model.named_modules():
        if name.rpartition('.')[2] in ('retina_cls', 'atss_cls', 'conv_cls', 'rpn_cls', 'fc_cls', 'conv_logits'):
            # else all scores are alike, or all are 1
            module.weight.data.normal_(0, 0.02 if name.endswith('retina_cls') else 0.3)
            if module.bias is not None:
                module.bias.data.normal_(-1, 0.1)
    return model.requires_grad_(False)


SOFT = [dict(min_score=0.02), dict(method='gaussian', sigma=0.3), dict(class_agnostic=True)]


@pytest.mark.parametrize(
    ('kind', 'nms'), [*((kind, None) for kind in KINDS), ('retinanet', {}), *(('mask', method) for method in SOFT)]
)
def test_boxes_are_those_of_mmdet(kind, nms):
    model = detector(kind)
    if nms is not None:
        cfg = model.test_cfg.rcnn if kind == 'mask' else model.bbox_head.test_cfg
        cfg.nms = ConfigDict(type='soft_nms', iou_threshold=0.4, **nms)
        assert DetectorOutputs(model).details({})['least'] == nms.get('min_score', 1e-3)
    image = torch.randn(2, 3, 128, 160)
    shapes, scales = [(128, 160), (117, 150)], [(0.5, 0.5), (0.8, 0.75)]
    samples = [model_sample(shape, scale) for shape, scale in zip(shapes, scales)]
    size = torch.tensor([[*shape, 1 / scale[0], 1 / scale[1]] for shape, scale in zip(shapes, scales)])
    outputs = DetectorOutputs(model)
    result = dict(zip(outputs.names, outputs(image, size)))
    expected = model.predict(image, samples, rescale=True)
    for row, sample in enumerate(expected):
        instances: InstanceData = sample.pred_instances
        count = len(instances)
        assert count > 5 and int((result['scores'][row] > 0).sum()) == count
        torch.testing.assert_close(result['scores'][row, :count], instances.scores, rtol=0, atol=1e-6)
        torch.testing.assert_close(result['boxes'][row, :count], instances.bboxes, rtol=0, atol=1e-3)
        assert (result['labels'][row, :count] == instances.labels).all()


def model_sample(shape, scale):
    from mmdet.structures import DetDataSample

    original = tuple(round(side / factor) for side, factor in zip(shape, scale[::-1]))
    meta = dict(
        img_shape=shape, ori_shape=original, scale_factor=scale, pad_shape=(128, 160), batch_input_shape=(128, 160)
    )
    return DetDataSample(metainfo=meta)


def test_what_cannot_be_exported_is_named():
    model = detector('faster')
    model.test_cfg.rcnn.nms.type = 'nms_match'
    with pytest.raises(
        InputError, match=r"model.test_cfg.rcnn.nms.type: 'nms_match' cannot be exported, only 'nms' and "
    ):
        DetectorOutputs(model)
    model.test_cfg.rcnn.nms = ConfigDict(type='soft_nms', method='naive')
    with pytest.raises(InputError, match=r"rcnn.nms.method: 'naive' cannot be exported, only 'linear' and 'gau"):
        DetectorOutputs(model)
    model = detector('retinanet')
    model.bbox_head.__class__ = type('OwnHead', (type(model.bbox_head),), {})
    with pytest.raises(InputError, match=r'model.bbox_head: OwnHead cannot be exported; those that can are RetinaHead'):
        DetectorOutputs(model)


@pytest.mark.parametrize(
    ('kind', 'stage', 'key'),
    [('faster', 'rcnn', 'max_per_img'), ('faster', 'rpn', 'max_per_img'), ('faster', 'rpn', 'nms_pre')]
    + [('retinanet', None, 'nms_pre'), ('retinanet', None, 'max_per_img')],
)
def test_all_boxes_are_no_number(kind, stage, key):
    """mmdet's -1; torch's own words about it name no setting."""
    model = detector(kind)
    cfg = model.test_cfg[stage] if stage else model.bbox_head.test_cfg
    cfg[key] = -1
    with pytest.raises(InputError, match=rf'{key}: -1 cannot be exported: a file holds a number of boxes, give one'):
        DetectorOutputs(model)


def test_a_program_takes_maps_of_odd_and_of_even_sizes():
    """torch asks for the remainder where it pools."""
    from icconv_mm.app.export.networks import capture
    from icconv_mm.app.export.writers import standard_module

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.outputs = DetectorOutputs(detector('faster'))

        def forward(self, images, size):
            return self.outputs(images[0], size)

    network = Network()
    example = [torch.randn(1, 3, 128, 192)], torch.tensor([[128.0, 192.0, 1, 1]])
    program = capture(network, example, [2, 3])
    written = capture(standard_module(program), example, [2, 3])
    given = [torch.randn(1, 3, 160, 224)], torch.tensor([[150.0, 224.0, 1, 1]])
    for exported in (program, written):
        for output, expected in zip(exported.module()(*given), network(*given), strict=True):
            torch.testing.assert_close(output, expected)


def test_suppression_in_the_file():
    """Scores of 0, of less than float32's smallest, and empty entries; no threshold is below 0."""
    import numpy as np
    import onnx
    import onnxruntime

    from icconv_mm.app.export.onnx_files import to_onnx
    from icconv_mm.app.export.operators import NONE, nms_mask

    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            return nms_mask(boxes, scores, 0.5, NONE / 2)

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 60, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(2, 60, 2, generator=generator)], -1)
    scores = torch.rand(2, 60, generator=generator)
    scores[:, :20] = torch.tensor([NONE, 0, 1e-30, 1e-39]).repeat(5)
    names = ['boxes', 'scores'], ['kept']
    model = to_onnx(torch.export.export(Suppress(), (boxes, scores)), *names)
    assert model.ir_version == 8  # what the first runtimes of this opset know
    (node,) = (node for node in model.graph.node if node.op_type == 'NonMaxSuppression')
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert values[node.input[4]] > 0
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    (indices,) = session.run(None, {'boxes': boxes.numpy(), 'scores': scores.numpy()})
    expected = nms_mask(boxes, scores, 0.5, NONE / 2)
    assert expected[:, 1:20:4].sum() > 0 and not expected[:, :20:4].any()
    np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize('gaussian', [False, True])
def test_soft_suppression_in_the_file(gaussian, tmp_path):
    """Crowds of two images, equal boxes, empty entries and low scores; an image without boxes; all below the lowest."""
    import numpy as np
    import onnx
    import onnxruntime

    from icconv_mm.app.export.onnx_files import to_onnx
    from icconv_mm.app.export.operators import NONE, soft_nms

    class Suppress(torch.nn.Module):
        def forward(self, boxes, scores):
            return soft_nms(boxes, scores, 0.5, 0.3, gaussian, 0.01)

    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 80, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(2, 80, 2, generator=generator)], -1)
    boxes[:, 70] = boxes[:, 60]
    scores = torch.rand(2, 80, generator=generator)
    scores[:, :20] = torch.tensor([NONE, 0, 1e-30, 5e-3]).repeat(5)
    model = to_onnx(torch.export.export(Suppress(), (boxes, scores)), ['boxes', 'scores'], ['left'])
    assert model.ir_version == 8
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    onnx.save(model, tmp_path / 'soft.onnx')
    readers = [lambda inputs: session.run(None, inputs)[0]]
    if openvino := find_spec('openvino') and importlib.import_module('openvino'):
        compiled = openvino.compile_model(str(tmp_path / 'soft.onnx'), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        readers.append(lambda inputs: compiled(inputs)[0])
    one = torch.full_like(scores, NONE)
    one[1] = scores[1]
    low = torch.full_like(scores, NONE)
    low[0, 5] = 5e-3
    for given, least in ((scores, 50), (one, 25), (torch.full_like(scores, NONE), 0), (low, 1)):
        expected = soft_nms(boxes, given, 0.5, 0.3, gaussian, 0.01)
        assert (expected > 0).sum() >= least and (least > 1 or (expected > 0).sum() == least)
        for reader in readers:
            left = reader({'boxes': boxes.numpy(), 'scores': given.numpy()})
            np.testing.assert_allclose(left, expected, rtol=0, atol=1e-6)
