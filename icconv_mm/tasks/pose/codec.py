"""Codec of mmpose for associative embedding: encodes people as targets, and decodes maps to people."""

from collections.abc import Sequence

import numpy as np
from mmengine.registry import Registry
from mmpose.codecs.base import BaseKeypointCodec
from mmpose.registry import KEYPOINT_CODECS as _KEYPOINT_CODECS
from torch import Tensor

from icconv_mm.registry import SCOPE
from icconv_mm.tasks.pose.grouping import group_keypoints
from icconv_mm.tasks.pose.targets import gaussian_heatmaps, keypoint_indices, valid_mask

KEYPOINT_CODECS = Registry('keypoint codec', parent=_KEYPOINT_CODECS, scope=SCOPE, locations=['icconv_mm.tasks.pose'])


@KEYPOINT_CODECS.register_module()
class AECodec(BaseKeypointCodec):
    """Encodes heatmaps and tag positions for training; decodes people from heatmaps and tags in testing.

    Associative Embedding, https://arxiv.org/abs/1611.05424, with the targets and the grouping of mmpose 0.x.

    Args:
        input_size: ``(width, height)`` of the network's input in training.
        heatmap_size: ``(width, height)`` of its output.
        sigma: Standard deviation of the Gaussians in heatmap pixels.
        max_num_people: People whose tags are trained per image; peaks kept per keypoint in testing.
        nms_kernel: An option of :func:`~icconv_mm.tasks.pose.group_keypoints`, as all that follow.
        detection_threshold: Lowest heatmap value of a keypoint.
        tag_threshold: Largest tag distance within a person.
        ignore_too_much: Return at most ``max_num_people`` people.
        adjust: Shift peaks by a quarter pixel.
        refine: Fill missing keypoints.
        keypoint_order: Order of grouping; None for the default order.
    """

    # Keys that ``GenerateTarget`` passes to ``encode``, and keys of the result that ``PackPoseInputs`` packs.
    auxiliary_encode_keys = {'invalid_segs', 'ori_shape', 'warp_mat', 'flip_direction'}
    field_mapping_table = dict(heatmaps='heatmaps', heatmap_mask='heatmap_mask')
    label_mapping_table = dict(keypoint_indices='keypoint_indices')

    def __init__(
        self,
        input_size: tuple[int, int] = (640, 640),
        heatmap_size: tuple[int, int] = (160, 160),
        sigma: float = 2.0,
        *,
        max_num_people: int = 30,
        nms_kernel: int = 5,
        detection_threshold: float = 0.1,
        tag_threshold: float = 1.0,
        ignore_too_much: bool = False,
        adjust: bool = True,
        refine: bool = True,
        keypoint_order: Sequence[int] | None = None,
    ):
        self.input_size = tuple(input_size)
        self.heatmap_size = tuple(heatmap_size)
        self.sigma = sigma
        self.grouping = dict(
            max_num_people=max_num_people,
            nms_kernel=nms_kernel,
            detection_threshold=detection_threshold,
            tag_threshold=tag_threshold,
            ignore_too_much=ignore_too_much,
            adjust=adjust,
            refine=refine,
            keypoint_order=keypoint_order,
        )

    def encode(
        self,
        keypoints: np.ndarray,
        keypoints_visible: np.ndarray | None = None,
        invalid_segs: Sequence | None = None,
        ori_shape: tuple[int, int] | None = None,
        warp_mat: np.ndarray | None = None,
        flip_direction: str | None = None,
    ) -> dict:
        """Returns the targets of one image.

        Args:
            keypoints: [N, K, 2], pixels of the network's input.
            keypoints_visible: [N, K]; keypoints of 0 are skipped. None uses all.
            invalid_segs: Segmentations of crowds and of people without keypoints, in pixels of the original image.
            ori_shape: ``(height, width)`` of the original image.
            warp_mat: 2 x 3, original image to input; None if the image was only resized.
            flip_direction: Direction in which the input was flipped after ``warp_mat``: 'horizontal', 'vertical',
                'diagonal' or None.

        Returns:
            ``heatmaps`` [K, H, W] float32; ``keypoint_indices`` [n, K, 2], see
            :func:`~icconv_mm.tasks.pose.targets.keypoint_indices`, of the first ``max_num_people`` people with a
            visible keypoint; ``heatmap_mask`` [1, H, W] bool, False where the loss ignores the heatmaps.
        """
        if keypoints_visible is None:
            keypoints_visible = np.ones(keypoints.shape[:2], dtype=np.float32)
        scale = np.divide(self.heatmap_size, self.input_size)
        keypoints = keypoints[..., :2] * scale
        indices = keypoint_indices(keypoints, keypoints_visible, self.heatmap_size)
        indices = indices[indices[..., 1].any(1)][: self.grouping['max_num_people']]
        width, height = self.heatmap_size
        mask = np.ones((height, width), dtype=bool)
        if ori_shape is not None:
            image_size = ori_shape[1], ori_shape[0]
            matrix = np.eye(2, 3) * np.divide(self.input_size, image_size)[:, None] if warp_mat is None else warp_mat
            matrix = matrix * scale[:, None]
            mask = valid_mask(invalid_segs or (), image_size, matrix, self.heatmap_size, flip_direction)
        return dict(
            heatmaps=gaussian_heatmaps(keypoints, keypoints_visible, self.heatmap_size, self.sigma),
            keypoint_indices=indices,
            heatmap_mask=mask[None],
        )

    def decode(self, encoded: tuple[Tensor, Tensor], input_size: tuple[int, int] | None = None) -> tuple:
        """Returns the people in one image.

        Args:
            encoded: Heatmaps [K, H, W] and tags [K, H, W, L].
            input_size: ``(width, height)`` of the input that the maps cover; None for that of training.

        Returns:
            Keypoints [P, K, 2] in input pixels, their scores [P, K] and the scores of the people [P], float32 arrays.
        """
        heatmaps, tags = encoded
        keypoints, scores = group_keypoints(heatmaps, tags, **self.grouping)
        keypoints, scores = keypoints.cpu().numpy(), scores.cpu().numpy()
        scale = np.divide(input_size or self.input_size, heatmaps.shape[:0:-1]).astype(np.float32)
        return keypoints[..., :2] * scale, keypoints[..., 2], scores

    def batch_decode(
        self, batch_heatmaps: Tensor, batch_tags: Tensor, input_size: tuple[int, int] | None = None
    ) -> tuple[list, ...]:
        """Decodes [B, K, H, W] and [B, K, H, W, L] by :meth:`decode` into three lists with one array per image."""
        decoded = [self.decode(maps, input_size) for maps in zip(batch_heatmaps, batch_tags)]
        return tuple(list(values) for values in zip(*decoded))
