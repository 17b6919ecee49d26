"""Synthetic maps of several people, and a literal decoder to compare with."""

import numpy as np
import torch

from icconv_mm.tasks.pose.targets import gaussian_heatmaps


def scene(people, count=17, size=(64, 48), seed=0, visible=0.8, tag_dim=1, noise=0.01):
    """Heatmaps [K, H, W] and tags [K, H, W, L] of people at random places, whose tags are 2 apart."""
    rng = np.random.RandomState(seed)
    width, height = size
    keypoints = rng.uniform((2, 2), (width - 3, height - 3), (people, count, 2))
    shown = rng.rand(people, count) < visible
    heatmaps = gaussian_heatmaps(keypoints, shown, size, 1.5) * rng.uniform(0.6, 1, (count, 1, 1))
    heatmaps = heatmaps + noise * rng.randn(*heatmaps.shape)
    tags = 0.3 * rng.randn(count, height, width, tag_dim)
    for person in range(people):
        for keypoint in range(count):
            x, y = keypoints[person, keypoint].astype(int)
            near = (keypoint, slice(max(0, y - 3), y + 4), slice(max(0, x - 3), x + 4))
            tags[near] = 2 * person + 0.05 * rng.randn(tag_dim)
    return torch.from_numpy(heatmaps).float(), torch.from_numpy(tags).float()
