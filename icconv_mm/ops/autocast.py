"""What ``torch.autocast`` does to the arguments of an operator."""

import torch
from torch import Tensor


def lower(value: Tensor | list | tuple | None, device: str):
    """A tensor, or each of a list, in the autocast dtype of a device type; float64 and integers stay as they are."""
    if isinstance(value, (list, tuple)):
        return [lower(each, device) for each in value]
    if value is None or value.dtype == torch.float64 or not value.is_floating_point():
        return value
    return value.to(torch.get_autocast_gpu_dtype() if device == 'cuda' else torch.get_autocast_cpu_dtype())
