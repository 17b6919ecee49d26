"""On which GPUs which compiled operators are chosen: the one table to change after a run on a GPU."""

from functools import cache

import torch
from torch import Tensor

# Operator -> compute capability -> dtypes whose tests (`pytest -m gpu`) passed on such a GPU and which were faster
# there than the reference. The kernels compile wherever nvcc is, so having them says nothing about a GPU: they are
# chosen for these alone, or where the table of measured kernels has an entry, and can be used everywhere
# (docs/backends.md). float64 passed as well for the convolutions, but its kernels are plain ones.
PROVEN: dict[str, dict[tuple[int, int], frozenset[torch.dtype]]] = {
    'inception_conv2d': {(9, 0): frozenset({torch.float32, torch.float16, torch.bfloat16})},
    'integrated_norm': {},
    'pyramid_sum': {},
}


@cache
def capability(device: torch.device) -> tuple[int, int]:
    """The compute capability of a GPU."""
    return torch.cuda.get_device_capability(device)


def unproven(operator: str, tensor: Tensor) -> str | None:
    """The sentence that says that an operator is not chosen for a tensor, unless the table above has its GPU and dtype.

    Args:
        operator: A key of :data:`PROVEN`.
        tensor: On the GPU.
    """
    if tensor.dtype in PROVEN[operator].get(capability(tensor.device), ()):
        return None
    return f'its tests have not passed with {tensor.dtype} on a GPU like {tensor.device}'
