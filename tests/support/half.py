"""Whether the CPU computes in float16: torch 2.1 does not."""

import torch
from torch.nn import functional as F


def half_on_cpu() -> bool:
    try:
        F.conv2d(torch.ones(1, 1, 3, 3, dtype=torch.half), torch.ones(1, 1, 3, 3, dtype=torch.half))
    except RuntimeError:
        return False
    return True
