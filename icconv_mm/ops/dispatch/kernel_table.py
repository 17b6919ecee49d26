"""What was measured of several CUDA kernels of one operator, and which of them is in use.

The compiled library holds both and chooses by them (``csrc/kernel_table.cpp``). Here the committed file is read and
handed over, and the library is asked.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from math import isqrt
from pathlib import Path

import torch

from icconv_mm.errors import InputError

PATH = Path(__file__).with_name('kernel_table.json')
REFERENCE = 'reference'
# By operator, the kernels that can be used; the operator with ReLU goes with the plain one.
KERNELS = {
    'inception_conv2d': ('tiled', 'direct', 'kn2row', 'hybrid', 'fused', 'fused_wgmma'),
    'inception_conv2d_grad_input': ('tiled', 'direct', 'kn2row'),
    'inception_conv2d_grad_weight': ('tiled', 'direct', 'kn2row'),
    'pyconv2d': ('dense', 'merged', 'tiled'),
    'pyconv2d_grad_input': ('dense', 'merged', 'tiled'),
    'pyconv2d_grad_weight': ('dense', 'merged', 'tiled'),
}
_RANGE = 2  # an entry holds for so many times more or fewer pixels
_generation = 0


@dataclass(frozen=True)
class Measured:
    """The times of one class of calls: an operator, an architecture, a dtype and a shape.

    Nothing is ever measured on a user's machine: ``tools/gpu_acceptance.py`` fills the table on a GPU.

    Args:
        operator: One of :data:`KERNELS`.
        architecture: Compute capability, '9.0'.
        dtype: 'bfloat16', ...
        group_in, group_out: Channels of a group; of all groups for pyramidal convolutions.
        groups: Groups of the channels; of the first level for pyramidal convolutions.
        stride: Stride of both axes.
        pixels: Pixels of all outputs: batch x height x width.
        microseconds: By kernel; 'reference' may be among them.
        levels: Sides of the levels of a pyramidal convolution, '3,5,7,9'; empty for the others.
        source: What the figures come from.
    """

    operator: str
    architecture: str
    dtype: str
    group_in: int
    group_out: int
    groups: int
    stride: int
    pixels: int
    microseconds: Mapping[str, float] = field(hash=False)
    levels: str = ''
    source: str = ''

    @property
    def kernel(self) -> str:
        """The kernel with the shortest time."""
        return min(self.microseconds, key=self.microseconds.__getitem__)

    @property
    def shape(self) -> tuple:
        """What tells classes of calls apart, without the number of pixels."""
        sizes = self.group_in, self.group_out, self.groups, self.stride
        return (self.operator, self.architecture, self.dtype, *sizes, self.levels)


def load(path: Path | None = None) -> list[Measured]:
    """The entries of a table, the committed one unless another file is given.

    Raises:
        InputError: If the file is no table; names the entry and what is wrong with it.
    """
    path = path or PATH
    try:
        entries = json.loads(path.read_text())['entries']
        measured = [Measured(**entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f'{path} is no table of kernels: {error}') from error
    for number, entry in enumerate(measured):
        known = (*KERNELS.get(entry.operator, ()), REFERENCE)
        unknown = sorted(set(entry.microseconds) - set(known))
        if entry.operator not in KERNELS or unknown or not entry.microseconds or entry.pixels < 1:
            raise InputError(
                f'{path}, entry {number}: expected an operator of {sorted(KERNELS)}, times of its kernels {known} and '
                f'a positive number of pixels, got {entry.operator!r}, {dict(entry.microseconds)} and {entry.pixels}'
            )
    return measured


def _ranges(entries: Sequence[Measured]) -> Iterator[tuple[int, int, str]]:
    """The fewest and the most pixels that the kernels of one class serve; neighbours meet in the middle."""
    least = 0
    for each, after in zip(entries, (*entries[1:], None)):
        most = each.pixels * _RANGE
        if after is not None:
            most = min(most, isqrt(each.pixels * after.pixels))
        yield max(least, -(-each.pixels // _RANGE)), most, each.kernel
        least = most + 1


def install() -> None:
    """Hands the table to the compiled operators; for the module that loads them."""
    classes: dict[tuple, list[Measured]] = {}
    for each in sorted(load(), key=lambda each: each.pixels):
        classes.setdefault(each.shape, []).append(each)
    names, shapes, kernels = [], [], []
    for (operator, architecture, dtype, *numbers, levels), entries in classes.items():
        for least, most, kernel in _ranges(entries):
            names += [operator, architecture, dtype, levels]
            shapes += [*numbers, least, most]
            kernels.append(kernel)
    torch.ops.icconv_mm.set_kernel_table(names, shapes, kernels)
    find.cache_clear()


@lru_cache(maxsize=4096)  # asked at every call of an operator that takes the dispatcher
def find(
    operator: str,
    capability: tuple[int, int],
    dtype: torch.dtype,
    group_in: int,
    group_out: int,
    groups: int,
    stride: int,
    pixels: int,
    levels: str = '',
) -> str | None:
    """The kernel in use for an operator, else the one that was the fastest for such calls; None where nothing is known.

    :data:`REFERENCE` may be among the fastest. An entry holds from half to twice the number of pixels measured. Needs
    the compiled operators.
    """
    architecture, shape = '{}.{}'.format(*capability), [group_in, group_out, groups, stride, pixels]
    name = str(dtype).removeprefix('torch.')
    return torch.ops.icconv_mm.find_kernel(operator, architecture, name, shape, levels) or None


@contextmanager
def use(operator: str, kernel: str) -> Iterator[None]:
    """What :func:`icconv_mm.ops.use_kernel` does once the compiled operators are loaded."""
    if operator not in KERNELS:
        raise ValueError(f'use_kernel: {operator!r} has no kernels to choose from; {", ".join(KERNELS)} have')
    if kernel not in KERNELS[operator]:
        raise ValueError(f'use_kernel: {operator!r} has no kernel {kernel!r}; there are {", ".join(KERNELS[operator])}')
    before = _exchange(operator, kernel)
    try:
        yield
    finally:
        _exchange(operator, before)


def _exchange(operator: str, kernel: str) -> str:
    """Uses a kernel for an operator, none for ''; returns the one before."""
    global _generation
    before = torch.ops.icconv_mm.use_kernel(operator, kernel)
    _generation += 1
    find.cache_clear()
    return before


def generation() -> int:
    """Changes whenever another kernel is in use, so that nobody keeps a choice from before."""
    return _generation
