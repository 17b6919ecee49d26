"""Suite 'pose': what finding people in the maps costs, against the network and against mmpose's own decoder."""

import numpy as np
import torch
from mmpose.codecs import AssociativeEmbedding
from torch import Tensor
from torch.nn.functional import interpolate

from icconv_mm.tasks.pose.grouping import COCO_KEYPOINT_ORDER, group_keypoints
from icconv_mm.tasks.pose.targets import gaussian_heatmaps
from icconv_tools.benchmark.harness import Disagreement
from icconv_tools.benchmark.networks import POSE_PATTERNS, pose_estimator
from icconv_tools.benchmark.patterns import find_pattern
from icconv_tools.benchmark.report import Figure
from icconv_tools.benchmark.timing import Options, interleave

INPUT, PEOPLE, KEYPOINTS = 640, 30, 17


def run(options: Options) -> list[Figure]:
    """Decoding of 30 people at 640 x 640 against the IC-ResNet-50 forward and against mmpose 1.x's codec.

    Raises:
        Disagreement: If the two decoders do not find the same people.
    """
    heatmaps, tags = crowd()
    size, decode = (INPUT, INPUT), {'decode_topk': 30, 'decode_center_shift': 0.5}
    codec = AssociativeEmbedding(size, size, sigma=8, decode_keypoint_order=list(COCO_KEYPOINT_ORDER), **decode)
    mmpose_maps = heatmaps[None], tags.permute(3, 0, 1, 2).flatten(0, 1)[None].contiguous()
    people = _agree(group_keypoints(heatmaps, tags), codec.batch_decode(*mmpose_maps))
    network, pattern = _network(options.device)
    image = torch.randn(1, 3, INPUT, INPUT, device=options.device)
    channels_last = image.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        times = interleave(
            {
                'decode': lambda: group_keypoints(heatmaps.to(options.device), tags.to(options.device)),
                'mmpose': lambda: codec.batch_decode(*mmpose_maps),
                'forward': lambda: network(image, None),
                'forward channels_last': lambda: network(channels_last, None),
            },
            options,
        )
    forward = min((times['forward'], times['forward channels_last']), key=lambda timing: timing.median)
    notes = {'input': INPUT, 'people': people, 'keypoints': KEYPOINTS}
    return [
        Figure('pose', 'decoding / IC-R50 forward', times['decode'], forward, 0.1, {**notes, 'pattern': pattern}),
        Figure('pose', 'decoding / mmpose AssociativeEmbedding', times['decode'], times['mmpose'], 1 / 3, notes),
    ]


def crowd(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Heatmaps [K, H, W] and tags [K, H, W, 1] of 30 people, as a network gives them at stride 4, upsampled.

    People stand on a jittered grid and hide a fifth of their keypoints; heatmaps and tags are noisy.
    """
    rng = np.random.RandomState(seed)
    side = INPUT // 4
    cells = np.stack(np.meshgrid(np.arange(6), np.arange(5)), -1).reshape(PEOPLE, 1, 2)
    offsets = rng.uniform(0.25, 0.75, (PEOPLE, KEYPOINTS, 2))
    keypoints = (cells + offsets) * (side / 6, side / 5)
    shown = rng.rand(PEOPLE, KEYPOINTS) < 0.8
    shown[:, 0] = True  # everybody is known from the first keypoint on, so that no assignment has two optima
    heatmaps = gaussian_heatmaps(keypoints, shown, (side, side), 2.0)
    heatmaps = heatmaps * rng.uniform(0.7, 1, (KEYPOINTS, 1, 1)) + 0.01 * rng.randn(KEYPOINTS, side, side)
    tags = 0.3 * rng.randn(KEYPOINTS, side, side)
    for person, keypoint in zip(*np.nonzero(shown)):
        x, y = keypoints[person, keypoint].astype(int)
        tags[keypoint, max(0, y - 6) : y + 7, max(0, x - 6) : x + 7] = 2 * (person + 1) + 0.1 * rng.randn()
    maps = torch.from_numpy(np.stack([heatmaps, tags])).float()
    heatmaps, tags = interpolate(maps, size=(INPUT, INPUT), mode='bilinear', align_corners=False)
    return heatmaps, tags.unsqueeze(-1)


def _network(device: str) -> tuple[torch.nn.Module, str]:
    """Backbone and head of the published IC-ResNet-50; an analytic pattern where the published one cannot be read."""
    pattern = find_pattern(*POSE_PATTERNS)
    return pose_estimator({'type': 'icconv_mm.ICResNet', 'pattern': pattern}).to(device).eval(), pattern


def _agree(ours: tuple, theirs: tuple) -> int:
    """Number of people, if both decoders found the same keypoints of the same people (within the sub-pixel shift)."""
    keypoints = ours[0].numpy()
    expected, scores = theirs[0][0], theirs[1][0]
    if len(keypoints) != len(expected):
        raise Disagreement(f'{len(keypoints)} people against {len(expected)} of mmpose')
    # Joints that no peak was assigned to are searched for with another cost in mmpose 1.x.
    seen = scores > 0.5
    distance = np.abs(keypoints[..., :2] - expected)[seen].max()
    if distance > 1:
        raise Disagreement(f'a keypoint {distance:.1f} pixels away from that of mmpose')
    return len(keypoints)
