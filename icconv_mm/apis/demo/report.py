"""What the demo measured: a table on the console, ``report.json`` and ``report.md``."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table


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


_COLUMNS = ('task', 'metric', 'value', 'threshold', 'seconds', 'backbone file')


def _cells(result: Result) -> tuple[str, ...]:
    return (
        result.task,
        result.metric,
        f'{result.value:.3f}' + ('' if result.passed else ' (missed)'),
        '' if result.threshold is None else f'>= {result.threshold:.2f}',
        f'{result.seconds:.0f}',
        result.backbone_file,
    )


def print_table(results: Sequence[Result], console: Console) -> None:
    """One table of all tasks."""
    table = Table(title='icconv_mm on the miniature dataset', title_justify='left')
    for name in _COLUMNS:
        folds = name in ('task', 'backbone file')  # on a narrow terminal; what was measured is never cut
        justify = 'right' if name in ('value', 'seconds') else 'left'
        table.add_column(name, justify=justify, no_wrap=not folds, overflow='fold')
    for result in results:
        table.add_row(*_cells(result), style=None if result.passed else 'red')
    console.print(table)
    for note in _notes(results):
        console.print(note)


def _notes(results: Sequence[Result]) -> list[str]:
    """Which tasks did not start from random weights."""
    return [f'{each.task}: started with the backbone of {each.backbone_from}' for each in results if each.backbone_from]


def write_reports(results: Sequence[Result], folder: Path, picture: Path | None = None) -> None:
    """Write ``report.json``, a list with one object per task, and ``report.md`` below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'report.json').write_text(json.dumps([asdict(result) for result in results], indent=2) + '\n')
    rows = [_COLUMNS, ('---',) * len(_COLUMNS), *(_cells(result) for result in results)]
    lines = ['# icconv_mm on the miniature dataset', '', *('| ' + ' | '.join(row) + ' |' for row in rows)]
    lines += [''] + _notes(results) if _notes(results) else []
    if picture is not None:
        lines += ['', f'![ground truth and predictions]({picture.name})']
    (folder / 'report.md').write_text('\n'.join(lines) + '\n')
