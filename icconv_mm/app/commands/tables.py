"""Shows text, progress and tables on a terminal as they are, and makes tables for Markdown files.

The first row of a table holds the titles.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from icconv_mm.errors import printable

if TYPE_CHECKING:
    from icconv_mm.patterns.search import LayerResult


def console(**options: Any) -> Console:
    """Returns a console that shows text as it is; ``options`` are those of ``rich.console.Console``."""
    return Console(markup=False, emoji=False, **options)


def plain(text: str, style: str = '') -> Text:
    """Returns text, such as the name of a layer, that Rich shows as it is, with control characters escaped."""
    return Text(printable(text), style)


def progress_bar(items: Iterable, description: str, total: int | None, shown_on: Console) -> Iterator:
    """Yields the items with a progress bar."""
    columns = TextColumn('{task.description}', markup=False), BarColumn(), TaskProgressColumn()
    with Progress(*columns, TimeRemainingColumn(elapsed_when_finished=True), console=shown_on) as bar:
        yield from bar.track(items, total, description=printable(description))


def table(title: str, rows: Sequence[Sequence[str]], words: Collection[str], **options: Any) -> Table:
    """Returns a table: columns named in ``words`` fold where it is narrow; the others are numbers, which are never cut.

    ``options`` are those of ``rich.table.Table``.
    """
    titles, *rows = rows
    rich_table = Table(title=plain(title, 'table.title'), title_justify='left', **options)
    for name in titles:
        is_text = name in words
        rich_table.add_column(plain(name), justify='left' if is_text else 'right', no_wrap=not is_text, overflow='fold')
    for row in rows:
        rich_table.add_row(*map(plain, row))
    return rich_table


def results_table(results: Sequence['LayerResult']) -> Table:
    """Returns what a search chose, one row per layer.

    ``kept`` is the share of the sum of |weights| that the taps hold, ``extra`` what alignment adds to the least sum of
    errors.
    """
    rows = [('layer', 'channels', 'dilations', '(1, 1)', 'mean h', 'mean w', 'kept', 'extra')]
    module, *others = {result.name.partition('.')[0] for result in results}
    prefix = '' if others else f'{module}.'  # with it names would fold on a terminal of 80 columns
    for result in results:
        histogram, mean = result.pattern().histogram(), result.dilations.double().mean(0)
        units = len(result.dilations)
        channels = f'{units} groups' if result.groups > 1 else str(units)
        undilated = f'{histogram.get((1, 1), 0) / units:.0%}'
        numbers = (f'{mean[0]:.2f}', f'{mean[1]:.2f}', f'{result.kept:.0%}', f'{result.extra:.1%}')
        rows.append((result.name.removeprefix(prefix), channels, str(len(histogram)), undilated, *numbers))
    title = 'Dilations per layer' if others else f'Dilations per layer of {module}'
    return table(title, rows, {'layer'}, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table of rows, titles first."""
    titles, *rows = rows
    rows = ([as_markdown(cell) for cell in row] for row in (titles, ['---'] * len(titles), *rows))
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def as_markdown(text: str) -> str:
    """Returns text, such as the name of a class, as Markdown shows it: without HTML, in one cell of a table."""
    return printable(text).replace('&', '&amp;').replace('<', '&lt;').replace('|', '\\|')
