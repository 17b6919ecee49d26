"""Exportable outputs of mmpose's estimators: the maps of associative embedding, the poses of RTMO."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpose.models.heads import RTMOHead
from mmpose.models.pose_estimators import BottomupPoseEstimator
from mmpose.structures.bbox import bbox_xyxy2cs
from torch import Tensor, nn

from icconv_mm.app.export.operators import NONE, best, gather_rows, nms_mask
from icconv_mm.errors import InputError
from icconv_mm.tasks.pose import AEPoseEstimator
from icconv_mm.tasks.pose.estimator import AEHead
from icconv_mm.tasks.pose.multiscale import check_scales

_MOST_PEOPLE = 100  # people that RTMO returns per image


def outputs_of(estimator: nn.Module, where: str, meta: dict, scales: Sequence[float]) -> nn.Module:
    """Returns the output module of an estimator.

    Args:
        estimator: An estimator of mmpose.
        where: The estimator's name in an error.
        meta: mmpose's metadata of the keypoints.
        scales: Scales of the input images.

    Raises:
        InputError: The estimator cannot be exported.
    """
    head = getattr(estimator, 'head', None)
    if isinstance(estimator, AEPoseEstimator) and isinstance(head, AEHead):
        return EmbeddingOutputs(estimator, where, meta, scales)
    if type(estimator) is BottomupPoseEstimator and type(head) is RTMOHead:
        return RTMOOutputs(estimator, where)
    raise InputError(
        f'{where}.head: {type(head).__name__} of {type(estimator).__name__} cannot be exported; of mmpose, AEHead of '
        'AEPoseEstimator and RTMOHead of BottomupPoseEstimator can'
    )


def keypoints_of(meta: dict) -> dict[str, Any]:
    """Returns the metadata of the keypoints in JSON types."""
    names = meta.get('keypoint_id2name') or {}
    return {
        'keypoints': [names[i] for i in sorted(names)],
        'flip_indices': list(map(int, meta.get('flip_indices') or ())),
    }


class EmbeddingOutputs(nn.Module):
    """Computes ``heatmaps`` [N, K, H, W] and ``tags`` [N, L, K, H, W] of associative embedding, all scales merged.

    Args: Those of :func:`outputs_of`.

    Raises:
        InputError: Scale 1 is not among the scales.
    """

    kind = 'pose'
    names = ('heatmaps', 'tags')

    def __init__(self, estimator: nn.Module, where: str, meta: dict, scales: Sequence[float]):
        super().__init__()
        if 1 not in scales:
            raise InputError(f'{where}: the test scales {list(scales)} cannot be exported without scale 1')
        self.estimator, self.scales = estimator, list(scales)
        self.flip_indices = list(meta.get('flip_indices') or ())
        if estimator.test_cfg.get('flip_test', False) and not self.flip_indices:
            raise InputError(f"{where}.test_cfg.flip_test: the data say no 'flip_indices', which keypoints are swapped")

    def details(self, meta: dict) -> dict[str, Any]:
        """Returns the settings for the runtime."""
        return {'grouping': dict(self.estimator.head.decoder.grouping), **keypoints_of(meta)}

    def forward(self, image: Tensor | Sequence[Tensor], size: Tensor | None) -> tuple[Tensor, Tensor]:
        """Takes normalised images ``[N, 3, H, W]``, one per scale."""
        estimator, scales = self.estimator, self.scales
        levels = [image] if isinstance(image, Tensor) else list(image)
        height, width = levels[scales.index(1)].shape[-2:]
        if test_scales := estimator.test_cfg.get('test_scales'):
            levels, scales = estimator._resized(levels[0], []), check_scales(test_scales)
        features = estimator._features(levels, estimator.test_cfg.get('flip_test', False))
        meta = {'input_size': (width, height), 'test_scales': scales, 'flip_indices': self.flip_indices}
        heatmaps, tags = estimator.head.merge(features, meta, estimator.test_cfg)
        return heatmaps, tags.permute(0, 4, 1, 2, 3)


class RTMOOutputs(nn.Module):
    """Computes RTMO's ``keypoints`` [N, k, K, 2] in input pixels, ``keypoint_scores`` [N, k, K], ``scores`` [N, k]."""

    kind = 'pose'
    names = ('keypoints', 'keypoint_scores', 'scores')

    def __init__(self, estimator: nn.Module, where: str):
        super().__init__()
        if estimator.test_cfg.get('flip_test', False) or estimator.test_cfg.get('multiscale_test', False):
            raise InputError(f'{where}.test_cfg: RTMO with flip_test or multiscale_test cannot be exported')
        self.estimator = estimator

    def details(self, meta: dict) -> dict[str, Any]:
        """Returns the settings for the runtime."""
        return {'most': _MOST_PEOPLE, **keypoints_of(meta)}

    def forward(self, image: Tensor, size: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Takes normalised images ``[N, 3, H, W]``."""
        head, cfg = self.estimator.head, self.estimator.test_cfg
        classes, boxes, _, visible, vectors = head(self.estimator.extract_feat(image))
        sizes = [maps.shape[-2:] for maps in classes]
        priors = head.prior_generator.grid_priors(sizes, dtype=image.dtype, device=image.device)
        strides = [image.new_full((prior.shape[0],), stride) for prior, stride in zip(priors, head.featmap_strides)]
        priors, strides = torch.cat(priors), torch.cat(strides)
        scores = head._flatten_predictions(classes).sigmoid().amax(-1)
        boxes = head.decode_bbox(head._flatten_predictions(boxes), priors, strides)
        scores = torch.where(scores > cfg.get('score_thr', 0.01), scores, NONE)
        keep = nms_mask(boxes, scores, cfg.get('nms_thr', 1.0), NONE / 2)
        scores, indices = best(torch.where(keep > 0, scores, NONE), _MOST_PEOPLE)
        boxes = gather_rows(boxes, indices).flatten(0, 1)
        vectors = gather_rows(head._flatten_predictions(vectors), indices)
        grids = F.embedding(indices.flatten(), priors)
        corners = torch.cat(bbox_xyxy2cs(boxes, head.bbox_padding), 1)
        keypoints = head.dcc.forward_test(vectors.flatten(0, 1), corners, grids)
        visible = gather_rows(head._flatten_predictions(visible).sigmoid(), indices)
        return keypoints.unflatten(0, scores.shape), visible, scores
