"""Synthetic maps of several people, and a literal decoder to compare with."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

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


def decode_literally(heatmaps, tags, order, limit=30, kernel=5, threshold=0.1, tag_threshold=1.0):
    """The description of the paper and of mmpose 0.x in plain loops, one pixel after the other."""
    heatmaps, tags = heatmaps.numpy(), tags.numpy()
    count, height, width = heatmaps.shape
    half = kernel // 2
    people = []  # each {keypoint: (y, x)}
    for keypoint in order:
        heat = heatmaps[keypoint]
        peaks = []
        for y in range(height):
            for x in range(width):
                window = heat[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
                if heat[y, x] > threshold and heat[y, x] == window.max():
                    peaks.append((y, x))
        peaks = sorted(peaks, key=lambda peak: -heat[peak])[:limit]
        if not peaks:
            continue
        matched = {}
        if people:
            means = [np.mean([tags[k][p] for k, p in person.items()], axis=0, dtype=np.float64) for person in people]
            distance = np.array([[np.linalg.norm(tags[keypoint][p] - mean) for mean in means] for p in peaks])
            cost = np.round(distance) * 100 - np.array([[heat[p]] for p in peaks])
            matched = {i: j for i, j in zip(*linear_sum_assignment(cost)) if distance[i, j] < tag_threshold}
        for i, peak in enumerate(peaks):
            if i in matched:
                people[matched[i]][keypoint] = peak
            else:
                people.append({keypoint: peak})
    keypoints = np.zeros((len(people), count, 3))
    scores = np.zeros(len(people))
    for n, person in enumerate(people):
        scores[n] = sum(heatmaps[k][p] for k, p in person.items()) / count
        mean = np.mean([tags[k][p] for k, p in person.items()], axis=0)
        for keypoint in range(count):
            heat = heatmaps[keypoint]
            if keypoint not in person:
                value = heat - np.round(np.sqrt(((tags[keypoint] - mean) ** 2).sum(-1)))
                person[keypoint] = np.unravel_index(value.argmax(), value.shape)
                if heat[person[keypoint]] <= 0:
                    continue
            y, x = person[keypoint]
            right = heat[y, min(x + 1, width - 1)] > heat[y, max(x - 1, 0)]
            below = heat[min(y + 1, height - 1), x] > heat[max(y - 1, 0), x]
            keypoints[n, keypoint] = (
                x + 0.5 + (0.25 if right else -0.25),
                y + 0.5 + (0.25 if below else -0.25),
                heat[y, x],
            )
    return keypoints, scores
