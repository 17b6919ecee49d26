"""Tables of results, for the terminal and for Markdown files; of both the first row holds the titles."""

from collections.abc import Collection, Sequence
from typing import Any

from rich.table import Table


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
        made.add_row(*row)
    return made


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of rows, titles first."""
    titles, *rows = rows
    return ''.join(f'| {" | ".join(row)} |\n' for row in (titles, ['---'] * len(titles), *rows))
