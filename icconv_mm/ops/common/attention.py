"""What the attention operators share: scratch memory of fixed size, and the dtype in which they compute."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# Bytes of scratch memory of one call: on a CPU what stays in its caches, on a GPU what fills it.
SCRATCH = {'cpu': 16 << 20, 'cuda': 512 << 20}


def computed_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the arithmetic: half precision has neither the range nor the digits for logits."""
    return dtype if dtype == torch.float64 else torch.float32


@contextmanager
def widened(*tensors: Tensor | None) -> Iterator[list[Tensor | None]]:
    """The tensors in the dtype of the arithmetic, where autocast does not change it again."""
    dtype = torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32
    with torch.autocast(tensors[0].device.type, enabled=False), torch.no_grad():
        yield [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def rows_of_a_block(columns: int, buffers: int, like: Tensor) -> int:
    """How many rows of ``buffers`` matrices with so many columns fit into the scratch memory; 16 at least."""
    size = SCRATCH.get(like.device.type, SCRATCH['cuda'])
    return max(16, size // (buffers * columns * like.element_size()) // 16 * 16)


def in_blocks(rows: int, columns: int, buffers: int, like: Tensor) -> Iterator[tuple[slice, list[Tensor]]]:
    """Cuts ``rows`` into blocks; with each comes scratch memory, ``buffers`` matrices [rows of the block, columns]."""
    block = min(rows, rows_of_a_block(columns, buffers, like))
    scratch = like.new_empty((buffers, block, columns))
    for start in range(0, rows, block):
        stop = min(start + block, rows)
        yield slice(start, stop), list(scratch[:, : stop - start])
