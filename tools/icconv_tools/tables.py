"""Tables of results, for the terminal and for Markdown files; of both the first row holds the titles."""

from collections.abc import Collection, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from icconv_mm.errors import printable


def table(title: str, rows: Sequence[Sequence[str]], words: Collection[str], **options: Any) -> Table:
    """Columns named in ``words`` fold where it is narrow; the others are numbers, which are never cut.

    ``options`` are those of ``rich.table.Table``.
    """
    titles, *rows = rows
    made = Table(title=title, title_justify='left', **options)
    for name in titles:
        is_text = name in words
        made.add_column(name, justify='left' if is_text else 'right', no_wrap=not is_text, overflow='fold')
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of rows, titles first."""
    titles, *rows = rows
    rows = ([as_markdown(cell) for cell in row] for row in (titles, ['---'] * len(titles), *rows))
    return ''.join(f'| {" | ".join(row)} |\n' for row in rows)


def as_markdown(text: str) -> str:
    """Text, such as the name of a class, as Markdown shows it: without HTML, in one cell of a table."""
    return printable(text).replace('&', '&amp;').replace('<', '&lt;').replace('|', '\\|')
