"""The Lovasz-Softmax loss (https://arxiv.org/abs/1705.08790), without a sort of floating-point numbers."""

from typing import Any

import torch
from torch import Tensor, nn

from icconv_mm.registry import MODELS


@MODELS.register_module()
class LovaszSoftmaxLoss(nn.Module):
    """Computes what mmseg's ``LovaszLoss(reduction='none')`` does: the mean over the classes of a batch.

    The loss of a class sorts the errors of all pixels, which torch does in a quarter of the time on a CPU if they are
    integers. Errors are not negative, so that their bits, read as integers, have the same order.

    Args:
        loss_weight: Factor of the loss.
        loss_name: Its name in the log.
    """

    def __init__(self, loss_weight: float = 1.0, loss_name: str = 'loss_lovasz') -> None:
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def forward(
        self, cls_score: Tensor, label: Tensor, weight: Any = None, ignore_index: int = 255, **kwargs: Any
    ) -> Tensor:
        """Returns the loss, a scalar.

        Args:
            cls_score: Logits, [N, C, H, W].
            label: The class of each pixel, [N, H, W].
            weight: Not used, as in mmseg.
            ignore_index: Label of the pixels without a class.
            kwargs: Not used.
        """
        shares = cls_score.float().softmax(1).transpose(0, 1).flatten(1)
        label = label.flatten()
        is_known = label != ignore_index
        label = label.where(is_known, -1)
        losses = []
        for number, share in enumerate(shares):
            is_own = label == number
            if is_own.any():
                # ignored pixels have no error and come last
                errors = torch.where(is_known, (is_own.float() - share).abs(), 0)
                losses.append(errors.dot(_slopes(errors.detach(), is_own)))
        mean = torch.stack(losses).mean() if losses else 0 * shares.sum()
        return self.loss_weight * mean


def _slopes(errors: Tensor, is_own: Tensor) -> Tensor:
    """Returns by how much the Jaccard loss of a class grows at each pixel, taken by falling error, [pixels]."""
    order = (-errors.view(torch.int32)).sort().indices
    is_of_class = is_own[order]
    positives = is_of_class.cumsum(0)
    count = positives[-1]
    places = torch.arange(1, len(is_of_class) + 1, device=is_of_class.device)
    jaccard = 1 - (count - positives) / (count + places - positives)
    jaccard[1:] -= jaccard[:-1].clone()
    return torch.empty_like(errors).scatter_(0, order, jaccard)
