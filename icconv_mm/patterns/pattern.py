"""The dilation pattern of one inception convolution."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import NamedTuple

from icconv_mm.errors import InputError

MAX_DILATION = 1 << 20  # above the width of any map; kernels compute with products of it
_KEY = re.compile(r'\(\s*(-?\d+)\s*,\s*(-?\d+)\s*\)')


class Run(NamedTuple):
    """Consecutive output channels of one convolution that share a dilation."""

    out_channels: int
    dilation_h: int
    dilation_w: int


@dataclass(frozen=True, init=False, repr=False)
class DilationPattern:
    """The dilation of every output channel of a 3x3 convolution, as a table of runs in channel order.

    It iterates as its runs ``(out_channels, dilation_h, dilation_w)``, is immutable and hashable, and compares by them.
    The same dilation may appear in several runs. Runs of no channels, which published files contain, are kept in
    ``entries``, so a file is written back unchanged; they are neither iterated nor compared.

    Args:
        entries: Triples ``(out_channels, dilation_h, dilation_w)``.

    Attributes:
        runs: The entries that have channels.
        flat: The same as one tuple of integers, the argument of operators.
        is_uniform: Whether all runs share one dilation: an ordinary convolution.

    Raises:
        InputError: If ``entries`` is no table of triples of integers, a dilation is outside 1 to 2**20, a number of
            channels is outside 0 to 2**20, or all are 0.

    Source: IC-Conv, https://arxiv.org/abs/2012.13587, section 3.1.
    """

    entries: tuple[Run, ...] = field(compare=False)
    runs: tuple[Run, ...]
    flat: tuple[int, ...] = field(compare=False)
    is_uniform: bool = field(compare=False)  # stored, because each call of an operator reads it

    def __init__(self, entries: Iterable[Sequence[int]]):
        entries = tuple(_as_run(entry, position) for position, entry in enumerate(_table(entries)))
        runs = tuple(run for run in entries if run.out_channels)
        if not runs:
            raise InputError('a dilation pattern needs at least one channel, got none')
        object.__setattr__(self, 'entries', entries)
        object.__setattr__(self, 'runs', runs)
        object.__setattr__(self, 'flat', tuple(number for run in runs for number in run))
        object.__setattr__(self, 'is_uniform', all(run[1:] == runs[0][1:] for run in runs))

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __repr__(self) -> str:
        return f'DilationPattern({", ".join(f"{n}x({h}, {w})" for n, h, w in self.runs)})'

    @classmethod
    def of(cls, pattern: 'DilationPattern | Iterable[Sequence[int]]') -> 'DilationPattern':
        """Returns ``pattern`` itself, or the pattern of an iterable of runs."""
        return pattern if isinstance(pattern, cls) else cls(pattern)

    @property
    def out_channels(self) -> int:
        """The number of output channels of all runs (or of groups, in a pattern that counts in groups)."""
        return sum(run.out_channels for run in self.runs)

    @property
    def max_dilation(self) -> int:
        """The largest dilation on either axis."""
        return max(max(run.dilation_h, run.dilation_w) for run in self.runs)

    def histogram(self) -> dict[tuple[int, int], int]:
        """Returns the number of channels of each dilation ``(h, w)``, smallest dilation first."""
        counts: Counter = Counter()
        for n, h, w in self.runs:
            counts[h, w] += n
        return dict(sorted(counts.items()))

    def scaled(self, dilation: int | tuple[int, int]) -> 'DilationPattern':
        """Returns the pattern inside a dilated stage: every dilation times ``dilation`` (a number, or a pair)."""
        scale_h, scale_w = (dilation, dilation) if isinstance(dilation, int) else dilation
        if scale_h == scale_w == 1:
            return self
        return DilationPattern(tuple(Run(n, h * scale_h, w * scale_w) for n, h, w in self.entries))

    def for_convolution(self, out_channels: int, groups: int = 1) -> 'DilationPattern':
        """Returns the pattern in output channels of a convolution of this size.

        A pattern of a grouped convolution may count in groups (the published ResNeXt file does): if its sum is
        ``groups``, every count is multiplied by the channels of a group.

        Raises:
            InputError: If the counts sum neither to ``out_channels`` nor to ``groups``.
        """
        total = self.out_channels
        if total == out_channels:
            return self
        if groups > 1 and total == groups:
            size = out_channels // groups
            return DilationPattern(tuple(Run(n * size, h, w) for n, h, w in self.entries))
        expected = f'{out_channels} channels' + (f' or {groups} groups' if groups > 1 else '')
        raise InputError(f'the pattern sums to {total}, expected {expected}')

    @classmethod
    def from_json(cls, layer: dict[str, int] | list) -> 'DilationPattern':
        """Reads one layer of a pattern file.

        Args:
            layer: The published form ``{'(a, b)': channels}``, where the key means dilation ``(a + 1, b + 1)`` as
                (height, width); or a list of runs ``[channels, dilation_h, dilation_w]``, which can repeat a dilation.

        Raises:
            InputError: If a key or a count is malformed.
        """
        if isinstance(layer, list):
            return cls(tuple(layer))
        if not isinstance(layer, dict):
            raise InputError(f'expected an object of "(a, b)": channels or a list of runs, got {layer!r:.60}')
        entries = []
        for key, n in layer.items():
            if (match := _KEY.fullmatch(key)) is None:
                raise InputError(f'malformed key {key!r}, expected "(a, b)" for dilation (a + 1, b + 1)')
            entries.append((n, int(match[1]) + 1, int(match[2]) + 1))
        return cls(tuple(entries))

    def to_json(self) -> dict[str, int] | list[list[int]]:
        """Returns the published form of this layer, or the list of runs where a dilation repeats."""
        published = {f'({h - 1}, {w - 1})': n for n, h, w in self.entries}
        return published if len(published) == len(self.entries) else [list(run) for run in self.entries]


def _table(entries) -> tuple:
    """Returns the entries as a tuple; raises InputError for text and for anything that cannot be iterated."""
    try:
        if isinstance(entries, (str, bytes)):
            raise TypeError
        return tuple(entries)
    except TypeError:
        raise InputError(
            'the pattern of a layer is a table of runs (out_channels, dilation_h, dilation_w), got '
            f'{entries!r:.60}; names and files are for networks: icconv_mm.patterns.load_pattern'
        ) from None


def _as_run(entry, position: int) -> Run:
    try:
        if isinstance(entry, str) or any(isinstance(number, bool) for number in entry):
            raise TypeError
        run = Run(*map(index, entry))
    except TypeError:
        raise InputError(
            f'run {position}: expected three integers (out_channels, dilation_h, dilation_w), got {entry!r:.60}'
        ) from None
    if run.out_channels < 0:
        raise InputError(f'run {position}: the number of channels must not be negative, got {run.out_channels}')
    if min(run.dilation_h, run.dilation_w) < 1:
        raise InputError(f'run {position}: a dilation must be at least 1, got ({run.dilation_h}, {run.dilation_w})')
    if (largest := max(run)) > MAX_DILATION:
        raise InputError(
            f'run {position}: expected dilations and channels up to {MAX_DILATION}, got {str(largest)[:30]}'
        )
    return run
