"""Which of several CUDA kernels serves a call: a table of what was measured."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from math import isqrt
from pathlib import Path

import torch

from icconv_mm.errors import InputError

PATH = Path(__file__).with_name('kernel_table.json')
REFERENCE = 'reference'
# By operator, the kernels that can be asked for by name; the operator with ReLU goes with the plain one.
KERNELS = {
    'inception_conv2d': ('tiled', 'direct', 'kn2row', 'hybrid', 'fused', 'fused_wgmma'),
    'inception_conv2d_grad_input': ('tiled', 'direct', 'kn2row'),
    'inception_conv2d_grad_weight': ('tiled', 'direct', 'kn2row'),
    'pyconv2d': ('dense', 'merged', 'tiled'),
    'pyconv2d_grad_input': ('dense', 'merged', 'tiled'),
    'pyconv2d_grad_weight': ('dense', 'merged', 'tiled'),
}
_RANGE = 2  # an entry holds for so many times more or fewer pixels
requested_kernels: dict[str, str] = {}  # by operator, those of `use_kernel`


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


@cache
def _by_shape() -> dict[tuple, list[tuple[int, int, str]]]:
    """The kernels of each class, with the fewest and the most pixels that they serve; neighbours meet in the middle."""
    found: dict[tuple, list[Measured]] = {}
    for each in sorted(load(), key=lambda each: each.pixels):
        found.setdefault(each.shape, []).append(each)
    return {shape: list(_ranges(entries)) for shape, entries in found.items()}


def _ranges(entries: Sequence[Measured]) -> Iterator[tuple[int, int, str]]:
    least = 0
    for each, after in zip(entries, (*entries[1:], None)):
        most = each.pixels * _RANGE
        if after is not None:
            most = min(most, isqrt(each.pixels * after.pixels))
        yield max(least, -(-each.pixels // _RANGE)), most, each.kernel
        least = most + 1


@lru_cache(maxsize=4096)  # asked at every call of an operator
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
    """The kernel that was the fastest for such calls, :data:`REFERENCE` among them; None where nothing is known.

    An entry holds from half to twice the number of pixels measured.
    """
    if operator in requested_kernels:
        return requested_kernels[operator]
    architecture = '{}.{}'.format(*capability)
    shape = (operator, architecture, str(dtype).removeprefix('torch.'), group_in, group_out, groups, stride, levels)
    ranges = _by_shape().get(shape, ())
    return next((kernel for least, most, kernel in ranges if least <= pixels <= most), None)


def install() -> None:
    """Hands the table to the compiled operators; for the module that loads them."""
    names, shapes, kernels = [], [], []
    for shape, ranges in _by_shape().items():
        operator, architecture, dtype, *numbers, levels = shape
        for least, most, kernel in ranges:
            # without an entry 'tiled' serves inception convolutions: a table of it alone costs calls no look-up
            is_default = kernel == 'tiled' and operator.startswith('inception_conv2d')
            if kernel != REFERENCE and not is_default:
                names += [operator, architecture, dtype, levels]
                shapes += [*numbers, least, most]
                kernels.append(kernel)
    torch.ops.icconv_mm.set_kernel_table(names, shapes, kernels)


@contextmanager
def forced(operator: str, kernel: str) -> Iterator[None]:
    """What :func:`icconv_mm.ops.use_kernel` does once the compiled operators are loaded."""
    if kernel not in KERNELS.get(operator, ()):
        raise ValueError(f'use_kernel: {operator!r} has no kernel {kernel!r}; there are {KERNELS.get(operator, ())}')
    before = torch.ops.icconv_mm.force_kernel(operator, kernel)
    requested_kernels[operator] = kernel
    find.cache_clear()
    try:
        yield
    finally:
        torch.ops.icconv_mm.force_kernel(operator, before)
        requested_kernels.pop(operator)
        if before:
            requested_kernels[operator] = before
        find.cache_clear()
