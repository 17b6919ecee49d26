"""What the demo measured: tables on the console, ``report.json`` and ``report.md``."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from icconv_mm.app.commands.tables import as_markdown, markdown, table
from icconv_mm.files import write_json
from icconv_tools.demo.tasks import MULTITASK, SEPARATE

TITLE = 'icconv_mm on the miniature dataset'
BOTH = 'one network and four'


@dataclass(frozen=True)
class Result:
    """One row of the table.

    Attributes:
        task: What is evaluated.
        config: The config below the package's folder.
        backbone_file: The file of the backbone.
        metric: By what it is evaluated.
        value: In 0..1.
        threshold: In 0..1; None where the value is only reported.
        seconds: Time of the training and all tests of a network; None in all but the first of its rows.
        backbone_from: The network whose trained backbone this one started with; None for random weights.
        network: What ``--tasks`` calls the network.
    """

    task: str
    config: str
    backbone_file: str
    metric: str
    value: float
    threshold: float | None
    seconds: float | None
    backbone_from: str | None = None
    network: str = ''

    @property
    def passed(self) -> bool:
        """Whether the value reaches the threshold, if there is one."""
        return self.threshold is None or self.value >= self.threshold


def rows_of(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """The table of all results, titles first."""
    rows = [('task', 'metric', 'value', 'threshold', 'seconds', 'backbone file')]
    for result in results:
        value = f'{result.value:.3f}' + ('' if result.passed else ' (missed)')
        threshold = '' if result.threshold is None else f'>= {result.threshold:.2f}'
        seconds = '' if result.seconds is None else f'{result.seconds:.0f}'
        rows.append((result.task, result.metric, value, threshold, seconds, result.backbone_file))
    return rows


def rows_of_both(results: Sequence[Result]) -> list[tuple[str, ...]] | None:
    """One network against those for single tasks, titles first; None unless all of them have been tested."""
    alone = {task.name for task in SEPARATE}
    if not {MULTITASK.name, *alone} <= {result.network for result in results}:
        return None
    multitask = [result for result in results if result.network == MULTITASK.name]
    single = {(result.metric, result.threshold is None): result for result in results if result.network in alone}
    rows = [('task', 'metric', 'one network', 'four networks', 'difference', 'threshold')]
    for one in multitask:
        other = single[one.metric, one.threshold is None]
        threshold = '' if one.threshold is None else f'>= {one.threshold:.2f}'
        difference = f'{one.value - other.value:+.3f}'
        rows.append((other.task, one.metric, f'{one.value:.3f}', f'{other.value:.3f}', difference, threshold))
    one, four = (sum(row.seconds or 0 for row in part) for part in (multitask, single.values()))
    rows.append(('training and tests', 'seconds', f'{one:.0f}', f'{four:.0f}', f'{one - four:+.0f}', ''))
    return rows


def notes_on(results: Sequence[Result]) -> list[str]:
    """Which networks did not start from random weights."""
    return [
        f'{result.task}: started with the backbone of {result.backbone_from}'
        for result in results
        if result.backbone_from
    ]


def notes_on_file(results: Sequence[Result], folder: Path) -> list[str]:
    """The network for all tasks as one file, below the work folder: its size, its time, and how far it is off."""
    file = folder / MULTITASK.name / 'export.json'
    if not file.is_file() or all(result.network != MULTITASK.name for result in results):
        return []
    report = json.loads(file.read_text())
    file_time, theirs = report['milliseconds']['file'], report['milliseconds']['model']
    differences = ', '.join(f'{kind} {value:.0e}' for kind, value in report['check'].items() if kind != 'images')
    return [
        f'one network as one file: {report["file"]}, {report["bytes"] / 2**20:.1f} MiB, {file_time} ms an image where '
        f'PyTorch takes {theirs}; largest differences: {differences}'
    ]


def print_tables(results: Sequence[Result], console: Console, earlier: Collection[Result] = ()) -> None:
    """A table of all results, those of an earlier demo last and marked, and one that compares; no value is ever cut."""
    shown = [*results, *earlier]
    lines = table(TITLE, rows_of(shown), {'task', 'backbone file'})
    for row, result in zip(lines.rows, shown, strict=True):
        row.style = None if result.passed else 'red'
    console.print(lines, *notes_on(shown), sep='\n')
    if earlier:
        console.print(f'of an earlier call: {", ".join(dict.fromkeys(name.network for name in earlier))}')
    if both := rows_of_both(shown):
        console.print(table(BOTH, both, {'task'}))


def write_reports(results: Sequence[Result], folder: Path, image: Path | None = None) -> None:
    """Write ``report.json``, a list with one object per result, and ``report.md`` below ``folder``."""
    write_json(folder / 'report.json', [asdict(result) for result in results], indent=1)
    parts = [f'# {TITLE}\n', markdown(rows_of(results))]
    if notes := [*notes_on(results), *notes_on_file(results, folder)]:
        parts.append('\n'.join(map(as_markdown, notes)) + '\n')
    if both := rows_of_both(results):
        parts += [f'## {BOTH.capitalize()}\n', markdown(both)]
    if image is not None:
        parts.append(f'![ground truth and predictions]({image.name})\n')
    (folder / 'report.md').write_text('\n'.join(parts))
