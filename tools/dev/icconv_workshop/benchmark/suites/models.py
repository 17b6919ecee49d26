"""Suite 'models': whole models of mmdet, mmseg and mmpose, as shipped, against the same with one line changed.

Images are NCHW, as the libraries make them, and weights are random. Scores have no threshold, so that each detector
finds as many boxes in every image.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from mmdet.structures import DetDataSample
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from icconv_workshop.benchmark.networks import POSE_PATTERNS, Case, compare, pose_estimator, random_model
from icconv_workshop.benchmark.patterns import find_pattern
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.suites.layers import PATTERN, SUBSTITUTE
from icconv_workshop.benchmark.timing import Options

# batch and image of a test and of a training step, by device
TEST = {'cpu': (1, (800, 1088)), 'cuda': (2, (800, 1344))}
STEP = {'cpu': (2, (320, 320)), 'cuda': (2, (800, 1344))}
AS_SHIPPED = 0.90
FOUND = 20  # objects in an image
CONFIGS = {
    'RetinaNet': 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    'Mask R-CNN': 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
    'PSPNet': 'mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py',
}
SEGMENTATION_PATTERNS = ('segmentation/ic_resnet50_k9', 'geometric_d4')


def run(options: Options) -> Iterator[Figure]:
    """Figures of the models.

    Raises:
        Disagreement: If networks that should be equal are not.
    """
    for case in cases(options):
        if options.wants(case.label):
            yield from compare('models', case, options)


def cases(options: Options) -> Iterator[Case]:
    """What there is to time on this kind of device; the limits hold on the CPU."""
    kind = torch.device(options.device).type
    limit = AS_SHIPPED if kind == 'cpu' else None
    used = find_pattern(PATTERN, SUBSTITUTE)
    backbone = {'type': 'icconv_mm.ICResNet', 'pattern': used}
    for name in ('RetinaNet', 'Mask R-CNN'):
        networks = partial(detector, name, backbone), {'mmdet': partial(detector, name)}
        notes = {'pattern': used, 'objects': FOUND}
        yield Case(f'{name} IC-R50-k9', *networks, *TEST[kind], 'as shipped', limit, notes, forward=_detections)
        if name == 'RetinaNet':
            yield Case(
                f'{name} IC-R50-k9', *networks, *STEP[kind], 'as shipped step', None, notes,
                forward=_dense_outputs, loss=detection_loss,
            )  # fmt: skip
    used = find_pattern(*SEGMENTATION_PATTERNS)
    networks = partial(segmentor, {'type': 'icconv_mm.ICResNetV1c', 'pattern': used}), {'mmseg': segmentor}
    yield Case('PSPNet IC-R50-k9', *networks, 1, (512, 512), 'as shipped', None, {'pattern': used})
    used = find_pattern(*POSE_PATTERNS)
    networks = (
        partial(pose_estimator, {'type': 'icconv_mm.ICResNet', 'pattern': used}),
        {'mmpose': partial(pose_estimator, {'type': 'mmpose.ResNet'})},
    )
    notes = {'pattern': used}
    yield Case(
        'bottom-up pose IC-R50-k13', *networks, 1, (640, 640), 'as shipped', None, notes,
        forward=lambda model, x: model(x, None),
    )  # fmt: skip


def detector(name: str, backbone: dict | None = None, change: Callable[[dict], None] | None = None) -> nn.Module:
    """A detector of mmdet.

    Args:
        name: A key of :data:`CONFIGS`.
        backbone: Options that replace those of its backbone.
        change: Changes what else is to be different in ``model``.
    """
    model = get_config(CONFIGS[name]).model
    model.backbone |= {**(backbone or {}), 'init_cfg': None}
    for cfg in (model.test_cfg, model.test_cfg.get('rcnn', {})):
        if 'score_thr' in cfg:
            cfg |= {'score_thr': 0.0, 'max_per_img': FOUND}
    if change is not None:
        change(model)
    return random_model('mmdet', model)


def segmentor(backbone: dict | None = None) -> nn.Module:
    """PSPNet, giving its class scores for an image."""
    model = get_config(CONFIGS['PSPNet']).model
    model.backbone |= {**(backbone or {}), 'norm_cfg': {'type': 'BN', 'requires_grad': True}}
    model.pretrained = None
    for head in (model.decode_head, model.auxiliary_head):
        head.norm_cfg = {'type': 'BN', 'requires_grad': True}  # of one process
    return random_model('mmseg', model)


def make_samples(batch: int, size: tuple[int, int], device: str | torch.device) -> list[DetDataSample]:
    """Images of a size (height, width) with two boxes each."""
    height, width = size
    boxes = torch.tensor([[0.1, 0.1, 0.3, 0.4], [0.4, 0.2, 0.9, 0.9]]) * torch.tensor([width, height, width, height])
    samples = []
    for _ in range(batch):
        meta = {'img_shape': size, 'ori_shape': size, 'pad_shape': size, 'scale_factor': (1.0, 1.0)}
        sample = DetDataSample(metainfo={**meta, 'batch_input_shape': size})
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
        samples.append(sample.to(device))
    return samples


def _detections(model: nn.Module, x: Tensor) -> Iterable[Tensor]:
    predicted = model(x, make_samples(len(x), tuple(x.shape[2:]), x.device), mode='predict')
    return [sample.pred_instances.scores for sample in predicted]


def _dense_outputs(model: nn.Module, x: Tensor) -> Iterable[Tensor]:
    scores, boxes = model(x, mode='tensor')
    return [*scores, *boxes]


def detection_loss(model: nn.Module, x: Tensor) -> Tensor:
    """The sum of all losses."""
    return model.parse_losses(model(x, make_samples(len(x), tuple(x.shape[2:]), x.device), mode='loss'))[0]
