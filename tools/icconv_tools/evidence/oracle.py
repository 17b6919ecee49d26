"""Which half of a bottom-up network fails: the truth takes the place of its heatmaps, or of its tags."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine.registry import MODELS
from torch import Tensor

from icconv_mm.tasks.pose.head import AEHead
from icconv_mm.tasks.pose.targets import gaussian_heatmaps

_APART = 3.0  # between the tags of two people; more than any threshold of grouping


@MODELS.register_module()
class OracleAEHead(AEHead):
    """An :class:`AEHead` that knows the truth of one of its outputs in testing.

    Args:
        truth: 'heatmaps' or 'tags'.
        **kwargs: Arguments of :class:`AEHead`.
    """

    def __init__(self, truth: str, **kwargs):
        super().__init__(**kwargs)
        if truth not in ('heatmaps', 'tags'):
            raise ValueError(f"truth must be 'heatmaps' or 'tags', got {truth!r}")
        self.truth = truth

    def predict(self, feats: Iterable, batch_data_samples: Sequence, test_cfg: dict | None = None) -> list | tuple:
        """As of :class:`AEHead`; the samples have the annotations, in pixels of the image."""
        self._people = [_people_of(sample) for sample in batch_data_samples]
        return super().predict(feats, batch_data_samples, test_cfg)

    def merge(self, *args) -> tuple[Tensor, Tensor]:
        heatmaps, tags = (maps.clone() for maps in super().merge(*args))
        size = heatmaps.shape[-1], heatmaps.shape[-2]
        for index, (keypoints, visible) in enumerate(self._people):
            keypoints = keypoints * torch.tensor(size)
            if self.truth == 'tags':
                tags[index] = _tags(keypoints, visible, size)[..., None].to(tags)
            else:
                sigma = self.decoder.sigma * size[0] / self.decoder.heatmap_size[0]
                made = gaussian_heatmaps(keypoints.numpy(), visible.numpy(), size, sigma)
                heatmaps[index] = torch.from_numpy(made).to(heatmaps)
        return heatmaps, tags


def _people_of(sample: Any) -> tuple[Tensor, Tensor]:
    """Keypoints [P, K, 2], the network's input being one pixel wide and high, and which of them are visible [P, K]."""
    keypoints, visible = (torch.as_tensor(sample.gt_instances[key]) for key in ('keypoints', 'keypoints_visible'))
    center, extent = (torch.as_tensor(sample.metainfo[f'input_{key}']) for key in ('center', 'scale'))
    return (keypoints - (center - extent / 2)) / extent, visible


def _tags(keypoints: Tensor, visible: Tensor, size: tuple[int, int]) -> Tensor:
    """Tags [K, H, W]: every pixel has that of the person whose joint is nearest."""
    rows, columns = torch.meshgrid(torch.arange(size[1]), torch.arange(size[0]), indexing='ij')
    pixels = torch.stack([columns, rows], -1)  # [H, W, 2]
    if not len(keypoints):
        return torch.zeros(keypoints.shape[1], *pixels.shape[:2])
    distances = (pixels - keypoints[:, :, None, None]).square().sum(-1)  # [P, K, H, W]
    distances[visible == 0] = torch.inf
    return distances.argmin(0) * _APART
