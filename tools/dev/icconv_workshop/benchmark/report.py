"""What a benchmark reports: ratios of medians, with the times behind them."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from icconv_mm.files import write_json
from icconv_workshop.benchmark.timing import Options, Timing
from icconv_workshop.origin import circumstances, machine


@dataclass(frozen=True)
class Figure:
    """One time, or amount of memory, against another.

    Attributes:
        suite: Name of the suite.
        name: What is compared with what.
        subject: Time of what is evaluated; of memory, megabytes stand in the place of seconds.
        baseline: Time of what it is evaluated by.
        limit: Largest ratio that is wanted, None where none is set.
        notes: What a reader must know, such as sizes.
        unit: 'ms' of times, 'MB' of memory.
    """

    suite: str
    name: str
    subject: Timing
    baseline: Timing
    limit: float | None = None
    notes: dict[str, object] = field(default_factory=dict)
    unit: str = 'ms'

    @property
    def ratio(self) -> float:
        """Median of the subject over median of the baseline."""
        return self.subject.median / self.baseline.median

    @property
    def met(self) -> bool:
        """Whether the limit is kept."""
        return self.limit is None or self.ratio <= self.limit

    @property
    def verdict(self) -> str:
        """The limit and what became of it, in words; empty where there is none."""
        if self.limit is None:
            return ''
        return f'{self.limit:.3f} {"kept" if self.met else "MISSED"}'


def memory_figure(
    suite: str, name: str, subject: float, baseline: float, limit: float | None, notes: dict[str, object]
) -> Figure:
    """A figure of megabytes."""
    return Figure(suite, name, Timing(subject, subject, 1), Timing(baseline, baseline, 1), limit, notes, 'MB')


def print_figures(figures: Sequence[Figure], device: str) -> None:
    """A table on the terminal: medians (and minima) in milliseconds or megabytes, and the ratio of the medians."""
    from rich.console import Console  # a machine with a GPU may lack it

    from icconv_mm.app.commands.tables import table

    rows = [('suite', 'figure', 'median (min)', 'baseline (min)', 'ratio', 'limit', 'notes')]
    for figure in figures:
        notes = ', '.join(f'{key} {value}' for key, value in figure.notes.items())
        times = (_shown(timing, figure.unit) for timing in (figure.subject, figure.baseline))
        rows.append((figure.suite, figure.name, *times, f'{figure.ratio:.3f}', figure.verdict, notes))
    title = f'{machine(device)}, torch {torch.__version__}'
    Console(width=None if os.isatty(1) else 160).print(table(title, rows, {'suite', 'figure', 'notes'}))


def write_figures(figures: Sequence[Figure], options: Options, path: str | Path, command: str) -> None:
    """The figures as a JSON file, with what a reader needs to repeat them: a raw file of docs/measurements."""
    content = {
        **circumstances(command, options.device),
        'options': asdict(options),
        'figures': [{**asdict(figure), 'ratio': figure.ratio, 'met': figure.met} for figure in figures],
    }
    write_json(Path(path), content, indent=1)


def _shown(timing: Timing, unit: str) -> str:
    if unit == 'ms':
        return f'{1e3 * timing.median:.2f} ({1e3 * timing.minimum:.2f}) ms'
    return f'{timing.median:.0f} {unit}'
