"""Groups keypoints into people, from tensors of heatmaps and tags."""

from collections.abc import Sequence

import torch
from torch import Tensor

from icconv_mm.errors import InputError
from icconv_mm_runtime.grouping import Grouping, group_people


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
    """Finds the people in one image (associative embedding, https://arxiv.org/abs/1611.05424, section 3.3).

    Args:
        heatmaps: [K, H, W], one detection map per keypoint.
        tags: [K, H, W, L], the embedding of every pixel for every keypoint (L = 2 with a flip test, else 1).
        max_num_people: Number of peaks kept per keypoint; with ``ignore_too_much`` also of people.
        nms_kernel: Odd side of the window in which a peak must be the largest value.
        detection_threshold: A peak must exceed it.
        tag_threshold: A peak joins a person only if its tag is closer than this to the person's mean tag.
        ignore_too_much: Return only the first ``max_num_people`` people; later ones get no further keypoints.
        adjust: Shift peaks by a quarter pixel towards the larger neighbour, and to the pixel's centre.
        refine: Fill each person's missing keypoints with the best pixel of a similar tag.
        keypoint_order: Order in which keypoints are grouped; None uses :data:`COCO_KEYPOINT_ORDER` for 17 keypoints,
            else 0..K-1.

    Returns:
        ``keypoints`` [P, K, 3] as (x, y, score) in heatmap pixels, score 0 for a keypoint not found, and ``scores``
        [P], the mean keypoint score before refinement. People come in the order in which they were created. P may be 0.
        Both are float32 on the device of ``heatmaps``.

    Raises:
        InputError: If shapes disagree, maps are not finite or an option is out of range.
        ValueError: If there are more than ``icconv_mm_runtime.limits.MAX_PEAKS`` peaks.
    """
    _check_maps(heatmaps, tags, max_num_people, nms_kernel, keypoint_order)
    maps = heatmaps.detach().float().cpu().numpy(), tags.detach().float().permute(3, 0, 1, 2).cpu().contiguous().numpy()
    rule = Grouping(
        max_num_people,
        nms_kernel,
        detection_threshold,
        tag_threshold,
        ignore_too_much,
        adjust,
        refine,
        keypoint_order,
    )
    people = group_people(*maps, rule)
    keypoints, scores = (torch.from_numpy(person).to(heatmaps.device) for person in people)
    return keypoints, scores


def _check_maps(
    heatmaps: Tensor, tags: Tensor, max_num_people: int, nms_kernel: int, keypoint_order: Sequence[int] | None
) -> None:
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
        # A sum is faster than testing every value; it is not finite either if finite values overflow it.
        if torch.isfinite(maps.sum()):
            continue
        for keypoint, values in enumerate(maps):
            if count := int((~torch.isfinite(values)).sum()):
                raise InputError(
                    f'the {name} of keypoint {keypoint} is not finite (NaN or infinity) at {count} of '
                    f'{values.numel()} values; has training diverged?'
                )
    if keypoint_order is not None and sorted(keypoint_order) != list(range(len(heatmaps))):
        named = f'each of the {len(heatmaps)} keypoints once'
        raise InputError(f'keypoint_order must name {named}, got {list(keypoint_order)}')
