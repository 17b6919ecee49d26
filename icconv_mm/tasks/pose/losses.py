"""Losses of associative embedding (Newell et al., https://arxiv.org/abs/1611.05424), vectorised over images and people.

They follow the formulas of mmpose 0.x, which trained the published models; mmpose 1.x counts every person as its own
neighbour in the push term, and sums over the batch.
"""

import torch
from torch import Tensor, nn

from icconv_mm.errors import InputError
from icconv_mm.registry import MODELS


def heatmap_loss(
    pred: Tensor, target: Tensor, mask: Tensor, supervise_empty: bool = True, peak_weight: float = 0.0
) -> Tensor:
    """Returns the squared error averaged over all keypoints and pixels, with masked pixels counting as zero.

    Args:
        pred, target: [B, K, H, W].
        mask: [B, H, W], 0 where people are present but not annotated.
        supervise_empty: Whether maps without any keypoint add to the loss.
        peak_weight: Errors are weighted by ``1 + peak_weight * target``: few pixels are near a keypoint, and without
            it, a network with random initial weights long predicts only zero. 0 is the published loss.

    Returns:
        One value per image, [B].
    """
    error = (pred - target).square() * mask.unsqueeze(1)
    if peak_weight:
        error = error * (1 + peak_weight * target)
    if not supervise_empty:
        error = error * (target.flatten(2).sum(-1) > 0)[..., None, None]
    return error.flatten(1).mean(1)


def tag_loss(tags: Tensor, indices: Tensor, kind: str = 'exp') -> tuple[Tensor, Tensor]:
    """Pushes the mean tags of different people apart and pulls the tags of one person together.

    With person means ``m_n`` over the visible keypoints of the N people that have one (section 3.2 of the paper)::

        pull = 1/N sum_n mean_k (t_nk - m_n)^2
        push = 1/(N (N - 1)) sum_{n != n'} exp(-(m_n - m_n')^2) / 2      (kind 'exp')
        push = 1/(N (N - 1)) sum_{n != n'} max(0, 1 - |m_n - m_n'|) / 2  (kind 'max')

    A single person has push 0; an image without people has both 0, still connected to the graph.

    Args:
        tags: [B, K, H, W].
        indices: [B, N, K, 2], ``y * W + x`` and visibility; people that pad the batch have visibility 0.
        kind: 'exp' or 'max'.

    Returns:
        ``(push, pull)``, one value per image each, [B].
    """
    if kind not in ('exp', 'max'):
        raise InputError(f"tag loss type must be 'exp' or 'max', got {kind!r}")
    num_people = indices.shape[1]
    if num_people == 0:
        nothing = tags.flatten(1).sum(1) * 0
        return nothing, nothing
    tags = tags.flatten(2)  # [B, K, HW]
    position, visible = indices[..., 0], indices[..., 1].to(tags.dtype)
    values = tags.gather(2, position.transpose(1, 2)).transpose(1, 2)  # [B, N, K]

    count = visible.sum(-1)  # [B, N]
    present = (count > 0).to(tags.dtype)
    people = present.sum(-1)  # [B]
    mean = (values * visible).sum(-1) / count.clamp(min=1)
    spread = ((values - mean.unsqueeze(-1)).square() * visible).sum(-1) / count.clamp(min=1)
    pull = spread.sum(-1) / people.clamp(min=1)

    distance = mean.unsqueeze(2) - mean.unsqueeze(1)  # [B, N, N]
    closeness = torch.exp(-distance.square()) if kind == 'exp' else (1 - distance.abs()).clamp(min=0)
    others = 1 - torch.eye(num_people, dtype=tags.dtype, device=tags.device)
    pairs = present.unsqueeze(2) * present.unsqueeze(1) * others
    push = 0.5 * (closeness * pairs).sum((1, 2)) / (people * (people - 1)).clamp(min=1)
    return push, pull


@MODELS.register_module()
class MaskedHeatmapLoss(nn.Module):
    """Averages :func:`heatmap_loss` over the batch.

    Args:
        loss_weight: Factor of the result.
        supervise_empty, peak_weight: The arguments of :func:`heatmap_loss`.

    Raises:
        InputError: ``peak_weight`` is negative.
    """

    def __init__(self, loss_weight: float = 1.0, supervise_empty: bool = True, peak_weight: float = 0.0):
        super().__init__()
        if peak_weight < 0:
            raise InputError(f'MaskedHeatmapLoss: peak_weight must not be negative, got {peak_weight}')
        self.loss_weight, self.supervise_empty, self.peak_weight = loss_weight, supervise_empty, peak_weight

    def forward(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        return self.loss_weight * heatmap_loss(pred, target, mask, self.supervise_empty, self.peak_weight).mean()


@MODELS.register_module()
class TagLoss(nn.Module):
    """Averages :func:`tag_loss` over the batch.

    Args:
        push_weight, pull_weight: Factors of the two terms.
        kind: 'exp' or 'max'.
    """

    def __init__(self, push_weight: float = 1e-3, pull_weight: float = 1e-3, kind: str = 'exp'):
        super().__init__()
        self.push_weight, self.pull_weight, self.kind = push_weight, pull_weight, kind

    def forward(self, tags: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        push, pull = tag_loss(tags, indices, self.kind)
        return self.push_weight * push.mean(), self.pull_weight * pull.mean()
