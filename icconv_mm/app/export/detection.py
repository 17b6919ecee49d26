"""Exportable outputs of mmdet's detectors and instance segmentors, decoded in tensors of value-independent shapes.

Where mmdet cuts tensors to the number of boxes found, these keep the maximum number; empty entries have score -1. The
arithmetic is mmdet's own: its priors, its coders, its order of steps.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import (
    ATSSHead,
    FCOSHead,
    FreeAnchorRetinaHead,
    FSAFHead,
    RetinaHead,
    RPNHead,
)
from mmdet.models.dense_heads.rtmdet_head import RTMDetHead, RTMDetSepBNHead
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.roi_extractors import GenericRoIExtractor, SingleRoIExtractor
from torch import Tensor, nn

from icconv_mm.app.export.operators import NONE, best, gather_rows, nms_mask, roi_features, soft_nms
from icconv_mm.errors import InputError
from icconv_mm.tasks.detection.heads import TO_EDGES, EODCascadeRoIHead, EODRoIExtractor, PANetMaskHead
from icconv_mm.tasks.detection.roi_extractor import CPURoIExtractor

DENSE_HEADS = (RetinaHead, FreeAnchorRetinaHead, FSAFHead, ATSSHead, FCOSHead, RTMDetHead, RTMDetSepBNHead)
ROI_HEADS = (StandardRoIHead, CascadeRoIHead, EODCascadeRoIHead)
_SMALLEST = 1e-30  # a score that is none
EXTRACTORS = (SingleRoIExtractor, GenericRoIExtractor, CPURoIExtractor, EODRoIExtractor)


class DetectorOutputs(nn.Module):
    """Computes ``boxes`` [N, k, 4], ``scores`` [N, k], ``labels`` [N, k], and ``masks`` of some detectors.

    Args:
        detector: A detector of mmdet.
        where: The detector's name in an error.

    Raises:
        InputError: A part of it cannot be exported; the message names the part, and the supported ones.
    """

    def __init__(self, detector: nn.Module, where: str = 'model'):
        super().__init__()
        self.detector = detector
        self.two_stages = isinstance(detector, TwoStageDetector)
        if self.two_stages:
            self.with_masks = _check_two_stages(detector, where)
        else:
            name = next((name for name, _ in detector.named_children() if name.endswith('_head')), 'bbox_head')
            _check_kind(getattr(detector, name, None), DENSE_HEADS, f'{where}.{name}')
            _check_kind(detector, (SingleStageDetector,), where, exact=False)
            _check_test_cfg(detector.bbox_head.test_cfg, f'{where}.test_cfg')
            self.with_masks = False

        self.kind = 'instance' if self.with_masks else 'detection'
        self.names = ('boxes', 'scores', 'labels', *(['masks'] if self.with_masks else []))

    def details(self, meta: dict) -> dict[str, Any]:
        """Returns the settings for the runtime."""
        cfg = self.detector.test_cfg.rcnn if self.two_stages else self.detector.bbox_head.test_cfg
        masks = {'mask_threshold': cfg.mask_thr_binary} if self.with_masks else {}
        soft = _soft_settings(cfg.nms) if cfg.nms.get('type') == 'soft_nms' else {}
        return {'most': cfg.max_per_img, 'least': soft.get('min_score', cfg.get('score_thr', 0)), **masks}

    def forward(self, image: Tensor, size: Tensor) -> tuple[Tensor, ...]:
        """Takes normalised images ``[N, 3, H, W]``, and ``[N, 4]``: valid height and width, inverse scale (x, y)."""
        features = self.detector.extract_feat(image)
        if self.two_stages:
            return _two_stages(self.detector, features, size, self.with_masks)
        return _one_stage(self.detector.bbox_head, features, size)


def _check_kind(module: nn.Module | None, kinds: Sequence[type], where: str, exact: bool = True) -> None:
    """Raises InputError for a class that is not known; ``exact`` refuses subclasses, which may decode differently."""
    if not (type(module) in kinds if exact else isinstance(module, tuple(kinds))):
        names = ', '.join(kind.__name__ for kind in kinds)
        raise InputError(f'{where}: {type(module).__name__} cannot be exported; those that can are {names}')


def _check_test_cfg(cfg: dict, where: str) -> None:
    for key in ('nms_pre', 'max_per_img'):
        if cfg.get(key, 1) < 1:  # mmdet's "all"
            raise InputError(f'{where}.{key}: {cfg[key]} cannot be exported: a file holds a number of boxes, give one')
    nms = cfg.get('nms', {})
    kind, method = nms.get('type', 'nms'), nms.get('method', 'linear')
    if kind not in ('nms', 'soft_nms'):
        raise InputError(f"{where}.nms.type: {kind!r} cannot be exported, only 'nms' and 'soft_nms'")
    if kind == 'soft_nms' and method not in ('linear', 'gaussian'):
        raise InputError(f"{where}.nms.method: {method!r} cannot be exported, only 'linear' and 'gaussian'")


def _check_two_stages(detector: nn.Module, where: str) -> bool:
    roi = detector.roi_head
    _check_kind(detector.rpn_head, (RPNHead,), f'{where}.rpn_head')
    _check_kind(roi, ROI_HEADS, f'{where}.roi_head')
    _check_test_cfg(detector.test_cfg.rpn, f'{where}.test_cfg.rpn')
    _check_test_cfg(detector.test_cfg.rcnn, f'{where}.test_cfg.rcnn')
    for part in ('bbox', *(['mask'] if roi.with_mask else [])):
        for extractor in _stages(getattr(roi, f'{part}_roi_extractor')):
            _check_kind(extractor, EXTRACTORS, f'{where}.roi_head.{part}_roi_extractor')
    if roi.with_mask:
        for head in _stages(roi.mask_head):
            _check_kind(head, (FCNMaskHead, PANetMaskHead), f'{where}.roi_head.mask_head')
    return roi.with_mask


def _stages(part: nn.Module) -> Sequence[nn.Module]:
    return part if isinstance(part, nn.ModuleList) else [part]


# --- steps that all detectors share


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, nms: dict, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the best ``count`` boxes of mmcv's ``batched_nms``, their scores and indices.

    Args:
        boxes: ``[B, N, 4]``.
        scores: ``[B, N]``; :data:`NONE` for an empty entry.
        groups: ``[B, N]``; boxes of different groups do not suppress each other.
        nms: Config of ``nms`` or ``soft_nms``.
        count: Maximum number of boxes.
    """
    is_box = scores > NONE
    moved = boxes
    if not nms.get('class_agnostic', False):  # by offsets, with mmcv's rounding
        far = torch.where(is_box[..., None], boxes, 0.0).amax((1, 2), keepdim=True) + 1
        moved = boxes + groups[..., None].to(boxes.dtype) * far
    if nms.get('type') == 'soft_nms':
        scores = soft_nms(moved, scores, **_soft_settings(nms))
    else:
        keep = nms_mask(moved, scores, nms['iou_threshold'], NONE / 2)
        scores = torch.where(keep > 0, scores, NONE)
    values, indices = best(scores, count)
    return gather_rows(boxes, indices), values, indices


def _soft_settings(nms: dict) -> dict[str, Any]:
    """Returns the settings of a config of mmcv's ``soft_nms``, with its defaults."""
    return {
        'iou_threshold': nms.get('iou_threshold', 0.3),
        'sigma': nms.get('sigma', 0.5),
        'gaussian': nms.get('method', 'linear') == 'gaussian',
        'min_score': max(nms.get('min_score', 1e-3), _SMALLEST),
    }


def decode_boxes(coder: nn.Module, priors: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """Decodes boxes ``[B, N, 4]`` of priors ``[B, N, 2 or 4]`` and the head's deltas, clipped to the valid part."""
    batch, count = deltas.shape[:2]
    boxes = coder.decode(priors.reshape(-1, priors.shape[-1]), deltas.reshape(-1, 4)).reshape(batch, count, 4)
    if not getattr(coder, 'clip_border', True):
        return boxes
    least = getattr(coder, 'least_side', 0)
    low, less = boxes.new_tensor([0, 0, least, least]), boxes.new_tensor([least, least, 0, 0])
    return torch.minimum(torch.maximum(boxes, low), _for_boxes(size, [1, 0, 1, 0]) - less)


def _for_boxes(size: Tensor, columns: Sequence[int]) -> Tensor:
    """Returns columns of ``size`` as ``[B, 1, 4]``."""
    return size.index_select(1, torch.tensor(columns, device=size.device))[:, None]


def _large(boxes: Tensor, least: float) -> Tensor:
    return ((boxes[..., 2:] - boxes[..., :2]) > least).all(-1)


def _rows(maps: Tensor, channels: int) -> Tensor:
    """Reshapes ``[B, A * channels, H, W]`` to ``[B, H * W * A, channels]``."""
    return maps.permute(0, 2, 3, 1).reshape(maps.shape[0], -1, channels)


def _priors(head: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    first = maps[0]
    return head.prior_generator.grid_priors([m.shape[-2:] for m in maps], dtype=first.dtype, device=first.device)


def _scores(head: nn.Module, maps: Tensor) -> Tensor:
    rows = _rows(maps, head.cls_out_channels)
    return rows.sigmoid() if head.use_sigmoid_cls else rows.softmax(-1)[..., :-1]


# --- one-stage detectors


def _one_stage(head: nn.Module, features: Sequence[Tensor], size: Tensor) -> tuple[Tensor, ...]:
    classes, deltas, *factors = head(features)
    cfg, parts = head.test_cfg, []
    for level, priors in enumerate(_priors(head, classes)):
        scores = _scores(head, classes[level])
        flat = scores.flatten(1)
        values, indices = best(torch.where(flat > cfg.get('score_thr', 0), flat, NONE), cfg.nms_pre)
        rows, labels = indices // scores.shape[-1], indices % scores.shape[-1]
        if factors:
            factor = _rows(factors[0][level], 1).sigmoid()
            values = torch.where(values > NONE, values * gather_rows(factor, rows)[..., 0], values)
        deltas_of_level = gather_rows(_rows(deltas[level], 4), rows)
        parts.append((F.embedding(rows, priors), deltas_of_level, values, labels))
    priors, deltas, scores, labels = (torch.cat(part, 1) for part in zip(*parts))
    boxes = decode_boxes(head.bbox_coder, priors, deltas, size)
    boxes = boxes * _for_boxes(size, [2, 3, 2, 3])
    if (least := cfg.get('min_bbox_size', -1)) >= 0:
        scores = torch.where(_large(boxes, least), scores, NONE)
    boxes, scores, indices = suppressed(boxes, scores, labels, cfg.nms, cfg.max_per_img)
    return boxes, scores, labels.gather(1, indices)


# --- two-stage detectors


def _proposals(head: nn.Module, cfg: dict, features: Sequence[Tensor], size: Tensor) -> tuple[Tensor, Tensor]:
    classes, deltas = head(features)
    parts = []
    for level, priors in enumerate(_priors(head, classes)):
        values, rows = best(_scores(head, classes[level])[..., 0], cfg.nms_pre)
        deltas_of_level = gather_rows(_rows(deltas[level], 4), rows)
        parts.append((F.embedding(rows, priors), deltas_of_level, values, torch.full_like(rows, level)))
    priors, deltas, scores, levels = (torch.cat(part, 1) for part in zip(*parts))
    boxes = decode_boxes(head.bbox_coder, priors, deltas, size)
    if (least := cfg.get('min_bbox_size', -1)) >= 0:
        scores = torch.where(_large(boxes, least), scores, NONE)
    boxes, scores, _ = suppressed(boxes, scores, levels, cfg.nms, cfg.max_per_img)
    return boxes, scores


def _pooled(extractor: nn.Module, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Returns RoI features ``[B * k, C, h, w]`` of boxes ``[B, k, 4]``."""
    batch, count = boxes.shape[:2]
    image = torch.arange(batch, dtype=boxes.dtype, device=boxes.device)[:, None, None].expand(-1, count, 1)
    rois = torch.cat([image, boxes], -1).reshape(-1, 5)
    if isinstance(extractor, EODRoIExtractor):
        rois = rois - rois.new_tensor(TO_EDGES)
    layers = extractor.roi_layers
    features, first = list(features[: len(layers)]), layers[0]
    scales = [layer.spatial_scale for layer in layers]
    settings = list(first.output_size), int(first.sampling_ratio), first.aligned
    if isinstance(extractor, SingleRoIExtractor):
        level = extractor.map_roi_levels(rois, len(features))
        return roi_features(features, rois, level, scales, *settings)
    level = torch.zeros_like(rois[:, 0], dtype=torch.long)
    pooled = [roi_features([maps], rois, level, [scale], *settings) for maps, scale in zip(features, scales)]
    return torch.cat(pooled, 1) if extractor.aggregation == 'concat' else sum(pooled)


def _regressed(head: nn.Module, boxes: Tensor, labels: Tensor, deltas: Tensor, size: Tensor) -> Tensor:
    """Returns boxes ``[B, k, 4]`` refined by the deltas of their labels."""
    if not head.reg_class_agnostic:
        deltas = deltas.reshape(*deltas.shape[:2], -1, 4)
        deltas = deltas.gather(2, labels[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
    return decode_boxes(head.bbox_coder, boxes, deltas, size)


def _two_stages(detector: nn.Module, features: Sequence[Tensor], size: Tensor, with_masks: bool) -> tuple[Tensor, ...]:
    roi, cfg = detector.roi_head, detector.test_cfg
    boxes, proposal_scores = _proposals(detector.rpn_head, cfg.rpn, features, size)
    batch, count = boxes.shape[:2]
    heads, logits, deltas = _stages(roi.bbox_head), [], boxes
    for head, extractor in zip(heads, _stages(roi.bbox_roi_extractor)):
        if logits:
            boxes = _regressed(heads[len(logits) - 1], boxes, logits[-1][..., :-1].argmax(-1), deltas, size)
        classes, deltas = head(_pooled(extractor, features, boxes))
        logits.append(classes.reshape(batch, count, -1))
        deltas = deltas.reshape(batch, count, -1)
    if isinstance(roi, EODCascadeRoIHead):
        scores = sum(logit.softmax(-1) for logit in logits) / len(logits)
    else:
        scores = (sum(logits) / len(logits)).softmax(-1)
    scores = scores[..., :-1]
    kinds = scores.shape[-1]
    scores = torch.where(
        (scores > cfg.rcnn.score_thr) & (proposal_scores[..., None] > NONE), scores, torch.full_like(scores, NONE)
    )
    if head.reg_class_agnostic:
        boxes = decode_boxes(head.bbox_coder, boxes, deltas, size)[:, :, None].expand(-1, -1, kinds, -1)
    else:
        every = boxes[:, :, None].expand(-1, -1, kinds, -1).reshape(batch, -1, 4)
        boxes = decode_boxes(head.bbox_coder, every, deltas.reshape(batch, -1, 4), size)
    boxes = boxes.reshape(batch, -1, 4)
    scale = _for_boxes(size, [2, 3, 2, 3])
    if not with_masks:  # mmdet then scales before the suppression
        boxes = boxes * scale
    labels = torch.arange(kinds, device=boxes.device).expand(batch, count, -1).reshape(batch, -1)
    boxes, scores, indices = suppressed(boxes, scores.flatten(1), labels, cfg.rcnn.nms, cfg.rcnn.max_per_img)
    labels = labels.gather(1, indices)
    if not with_masks:
        return boxes, scores, labels
    return boxes * scale, scores, labels, _masks(roi, features, boxes, labels)


def _masks(roi: nn.Module, features: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """Returns probabilities ``[B, k, h, w]`` inside the boxes."""
    masks_of_objects = []
    for head, extractor in zip(_stages(roi.mask_head), _stages(roi.mask_roi_extractor)):
        masks = head(_pooled(extractor, features, boxes))
        if not head.class_agnostic:
            indices = labels.reshape(-1, 1, 1, 1).expand(-1, 1, *masks.shape[2:])
            masks = masks.gather(1, indices)
        masks_of_objects.append(masks.sigmoid())
    return (sum(masks_of_objects) / len(masks_of_objects)).reshape(*labels.shape, *masks_of_objects[0].shape[2:])
