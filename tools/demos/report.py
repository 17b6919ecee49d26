"""What the demo measured: a table on the console, ``report.json`` and ``report.md``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from icconv_mm.apis.tables import markdown, table


@dataclass(frozen=True)
class Result:
    """One row: value and threshold in 0..1 (None: reported only), seconds of training and test together.

    ``backbone_from`` is the task whose trained backbone this one started with (None: random weights).
    """

    task: str
    config: str
    backbone_file: str
    metric: str
    value: float
    threshold: float | None
    seconds: float
    backbone_from: str | None = None

    @property
    def passed(self) -> bool:
        return self.threshold is None or self.value >= self.threshold


def _rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """What the tables show, titles first."""
    rows = [('task', 'metric', 'value', 'threshold', 'seconds', 'backbone file')]
    for result in results:
        value = f'{result.value:.3f}' + ('' if result.passed else ' (missed)')
        threshold = '' if result.threshold is None else f'>= {result.threshold:.2f}'
        rows.append((result.task, result.metric, value, threshold, f'{result.seconds:.0f}', result.backbone_file))
    return rows


def print_table(results: Sequence[Result], console: Console) -> None:
    """One table of all tasks; what was measured is never cut."""
    made = table('icconv_mm on the miniature dataset', _rows(results), {'task', 'backbone file'})
    for row, result in zip(made.rows, results, strict=True):
        row.style = None if result.passed else 'red'
    console.print(made, *_notes(results), sep='\n')


def _notes(results: Sequence[Result]) -> list[str]:
    """Which tasks did not start from random weights."""
    return [f'{each.task}: started with the backbone of {each.backbone_from}' for each in results if each.backbone_from]


def write_reports(results: Sequence[Result], folder: Path, picture: Path | None = None) -> None:
    """Write ``report.json``, a list with one object per task, and ``report.md`` below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'report.json').write_text(json.dumps([asdict(result) for result in results], indent=2) + '\n')
    parts = ['# icconv_mm on the miniature dataset\n', markdown(_rows(results))]
    if notes := _notes(results):
        parts.append('\n'.join(notes) + '\n')
    if picture is not None:
        parts.append(f'![ground truth and predictions]({picture.name})\n')
    (folder / 'report.md').write_text('\n'.join(parts))
