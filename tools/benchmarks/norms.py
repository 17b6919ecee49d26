"""What integrated batch norm must give."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from benchmarks import contest


@torch.no_grad()
def check_integrated(norm: nn.Module, levels: Sequence[Tensor], tolerance: float) -> None:
    """Raise Disagreement unless a norm as it is made, in training mode, is batch norm over the whole pyramid."""
    whole = torch.cat([x.flatten(2) for x in levels], 2)[..., None]
    expected = nn.functional.batch_norm(whole, None, None, training=True).flatten(2)
    got = torch.cat([x.flatten(2) for x in norm(levels)], 2)
    label = 'integrated batch norm against batch norm over the concatenation'
    contest.check_equal(label, [got], [expected], tolerance)
