"""Losses of segmentation maps."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from icconv_mm.registry import MODELS


@MODELS.register_module()
class WeightedCrossEntropyLoss(nn.Module):
    """Cross entropy with a weight for each class, the mean over pixels that are labelled.

    mmseg's ``CrossEntropyLoss`` with ``class_weight`` ends in an IndexError where a pixel is ignored.

    Args:
        class_weight: A weight for each class.
        loss_weight: Factor of the loss.
        loss_name: Its name in the log; a loss that is learned from begins with ``loss_``.
    """

    def __init__(self, class_weight: Sequence[float], loss_weight: float = 1.0, loss_name: str = 'loss_ce') -> None:
        super().__init__()
        self.class_weight, self.loss_weight, self.loss_name = list(class_weight), loss_weight, loss_name

    def forward(self, logits: Tensor, labels: Tensor, weight: Tensor | None = None, ignore_index: int = 255) -> Tensor:
        """``[N, C, H, W]`` and ``[N, H, W]`` -> the loss; ``weight``, [N, H, W], is that of each pixel."""
        classes = logits.new_tensor(self.class_weight)
        losses = F.cross_entropy(logits, labels, classes, ignore_index=ignore_index, reduction='none')
        labelled = labels != ignore_index
        total = (classes[labels.where(labelled, 0)] * labelled).sum()
        losses = losses if weight is None else losses * weight
        return self.loss_weight * losses.sum() / total.clamp(min=1e-6)
