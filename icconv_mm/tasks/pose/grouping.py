"""From heatmaps and tags to people: non-maximum suppression, candidates, grouping by tag, sub-pixel shift, refinement.

The steps and their order are those of mmpose 0.x (``HeatmapParser``), which the published figures were measured with;
docs/pose.md lists the deliberate differences.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import max_pool2d

from icconv_mm.errors import InputError
from icconv_mm.tasks.pose.refinement import fill_missing, quarter_shift
from icconv_mm_runtime.grouping import COCO_KEYPOINT_ORDER, assign_by_tag


class Candidates(NamedTuple):
    """Peaks of one keypoint, best first."""

    pixels: np.ndarray  # [C, 2], (x, y)
    scores: np.ndarray  # [C]
    tags: np.ndarray  # [C, L]


def group_keypoints(
    heatmaps: Tensor,
    tags: Tensor,
    *,
    max_num_people: int = 30,
    nms_kernel: int = 5,
    detection_threshold: float = 0.1,
    tag_threshold: float = 1.0,
    ignore_too_much: bool = False,
    adjust: bool = True,
    refine: bool = True,
    keypoint_order: Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the people in one image (associative embedding, https://arxiv.org/abs/1611.05424, section 3.3).

    Args:
        heatmaps: [K, H, W], one detection map per keypoint.
        tags: [K, H, W, L], the embedding of every pixel for every keypoint (L = 2 with a flip test, else 1).
        max_num_people: Number of peaks kept per keypoint; with ``ignore_too_much`` also of people.
        nms_kernel: Odd side of the window in which a peak must be the largest value.
        detection_threshold: A peak must exceed it.
        tag_threshold: A peak joins a person only if its tag is closer than this to the person's mean tag.
        ignore_too_much: Return the first ``max_num_people`` people only; those opened later get no further keypoints.
        adjust: Shift peaks by a quarter pixel towards the larger neighbour, and to the pixel's centre.
        refine: Fill each person's missing keypoints with the best pixel of a similar tag.
        keypoint_order: Order in which keypoints are grouped; None takes :data:`COCO_KEYPOINT_ORDER` for 17 of them,
            else 0..K-1.

    Returns:
        ``keypoints`` [P, K, 3] as (x, y, score) in heatmap pixels, score 0 for a keypoint not found, and ``scores``
        [P], the mean keypoint score before refinement. People come in the order in which they were opened. P may be 0.
        Both are float32 on the device of ``heatmaps``.

    Raises:
        InputError: If shapes disagree, maps are not finite or an option is out of range.
    """
    _check(heatmaps, tags, max_num_people, nms_kernel)
    heatmaps, tags = (maps.detach().float() for maps in (heatmaps, tags))
    order = _keypoint_order(heatmaps.shape[0], keypoint_order)
    candidates = find_candidates(heatmaps, tags, max_num_people, nms_kernel, detection_threshold)
    limit = max_num_people if ignore_too_much else None
    people = assign_by_tag(candidates, order, tag_threshold, limit, linear_sum_assignment)
    keypoints = torch.from_numpy(people).to(heatmaps.device)
    scores = keypoints[..., 2].mean(1)
    if len(keypoints) == 0:
        return keypoints, scores
    found = keypoints[..., 2] > 0
    pixels = keypoints[..., :2].long()
    if adjust:
        keypoints[..., :2] = torch.where(found[..., None], quarter_shift(heatmaps, pixels), keypoints[..., :2])
    if refine:
        keypoints = fill_missing(heatmaps, tags, keypoints, pixels, found)
    return keypoints, scores


def find_peaks(heatmaps: Tensor, kernel: int, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoint, y and x of the pixels above ``threshold`` that are the largest of a ``kernel`` x ``kernel`` window.

    All pixels of a plateau are peaks.
    """
    if heatmaps.device.type != 'cpu':
        pooled = max_pool2d(heatmaps.unsqueeze(0), kernel, stride=1, padding=kernel // 2).squeeze(0)
        return torch.nonzero((heatmaps == pooled) & (heatmaps > threshold), as_tuple=True)
    window = np.ones((kernel, kernel), np.uint8)
    # On two cores max_pool2d takes 0.4 s for 17 maps of 640 x 640, OpenCV's dilation 0.02 s. Most keypoints of most
    # images are nowhere, and their maps not dilated.
    maps = heatmaps.contiguous().numpy()
    peaks = np.zeros(maps.shape, bool)
    for keypoint in np.flatnonzero(maps.max((1, 2)) > threshold):
        highest = cv2.dilate(maps[keypoint], window)
        peaks[keypoint] = (maps[keypoint] == highest) & (highest > threshold)
    keypoint, pixel = np.divmod(np.flatnonzero(peaks), peaks[0].size)
    y, x = np.divmod(pixel, peaks.shape[2])
    return torch.from_numpy(keypoint), torch.from_numpy(y), torch.from_numpy(x)


def find_candidates(heatmaps: Tensor, tags: Tensor, limit: int, kernel: int, threshold: float) -> list[Candidates]:
    """The ``limit`` highest peaks of every keypoint, with their tags, as float64 numpy arrays."""
    keypoint, y, x = peaks = find_peaks(heatmaps, kernel, threshold)
    scores, peak_tags = (maps[peaks].double().cpu().numpy() for maps in (heatmaps, tags))
    keypoint, pixels = keypoint.cpu().numpy(), torch.stack([x, y], 1).cpu().numpy()
    best_first = np.lexsort((-scores, keypoint))
    ends = np.bincount(keypoint, minlength=heatmaps.shape[0]).cumsum()
    chosen = [mine[:limit] for mine in np.split(best_first, ends[:-1])]
    return [Candidates(pixels[mine], scores[mine], peak_tags[mine]) for mine in chosen]


def _keypoint_order(num_keypoints: int, order: Sequence[int] | None) -> tuple[int, ...]:
    if order is None:
        return COCO_KEYPOINT_ORDER if num_keypoints == len(COCO_KEYPOINT_ORDER) else tuple(range(num_keypoints))
    if sorted(order) != list(range(num_keypoints)):
        raise InputError(f'keypoint_order must name each of the {num_keypoints} keypoints once, got {list(order)}')
    return tuple(order)


def _check(heatmaps: Tensor, tags: Tensor, max_num_people: int, nms_kernel: int) -> None:
    if heatmaps.dim() != 3 or tags.dim() != 4 or tags.shape[:3] != heatmaps.shape:
        raise InputError(
            'expected heatmaps [K, H, W] and tags [K, H, W, L] of the same keypoints and size, got '
            f'{list(heatmaps.shape)} and {list(tags.shape)}'
        )
    if nms_kernel < 1 or nms_kernel % 2 == 0:
        raise InputError(f'nms_kernel must be a positive odd number, got {nms_kernel}')
    if max_num_people < 1:
        raise InputError(f'max_num_people must be at least 1, got {max_num_people}')
    for name, maps in (('heatmap', heatmaps), ('tag map', tags)):
        # A sum is read faster than every value is tested; it is not finite either where finite values overflow it.
        if torch.isfinite(maps.sum()):
            continue
        for keypoint, values in enumerate(maps):
            if count := int((~torch.isfinite(values)).sum()):
                raise InputError(
                    f'the {name} of keypoint {keypoint} is not finite (NaN or infinity) at {count} of '
                    f'{values.numel()} values; has training diverged?'
                )
