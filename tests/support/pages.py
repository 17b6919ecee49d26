"""The pages of the documentation, and what is taken from them to be tested."""

import re
import subprocess
from pathlib import Path

from mmengine.config import Config

REPO = Path(__file__).resolve().parents[2]


def files(*patterns: str) -> list[Path]:
    """Every file named so that is, or is about to be, part of the repository."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', *patterns]
    listed = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    return [REPO / name for name in listed.split() if (REPO / name).is_file()]


def pages() -> list[Path]:
    """Every Markdown file."""
    return files('*.md')


def code_blocks(page: str, language: str = 'python') -> list[str]:
    """The blocks of code on a page, given by its path in the repository."""
    return re.findall(rf'^ *```{language}\n(.*?)^ *```', (REPO / page).read_text(), re.DOTALL | re.MULTILINE)


def runnable_blocks(page: str) -> list[str]:
    """The Python blocks that run as they stand, from the top of the page to its end.

    Left out are configs, which have a ``_base_`` and are read by mmengine, and what ``<!-- not run: needs ... -->``
    stands above: a GPU, or files of the reader's.
    """
    blocks = re.findall(
        r'^( *<!-- not run: needs [^\n]+ -->\n)? *```python\n(.*?)^ *```',
        (REPO / page).read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return [block for left_out, block in blocks if not left_out and '_base_' not in block]


def code_block(page: str, text: str) -> str:
    """The one Python block of a page that holds ``text``."""
    (block,) = (block for block in code_blocks(page) if text in block)
    return block


def config(block: str, folder: Path, configs: Path | None = None) -> Config:
    """A block read as a config.

    Args:
        block: May name the files of ``_base_`` with ``./``, ``../`` or ``{configs}``.
        folder: Where to write the config file.
        configs: What ``./`` stands for, as for a config in this folder.
    """
    path = folder / 'config.py'
    beside = block.replace("'./", f"'{configs}/").replace("'../", f"'{configs}/../")
    path.write_text(beside.replace('{configs}', f'{REPO}/configs'))
    return Config.fromfile(path)


def tables(text: str) -> list[list[list[str]]]:
    """Tables -> rows -> cells, headings first, without the line of dashes."""
    result = []
    for table in re.findall(r'(?:^ *\|.*\n?)+', text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip().strip('|').split('|')] for line in table.splitlines()]
        result.append([row for row in rows if not all(set(cell) <= set('-: ') and cell for cell in row)])
    return result


def section(page: str, title: str) -> str:
    """The text of a page under a heading of the second rank."""
    (text,) = re.findall(
        rf'^## {re.escape(title)}\n(.*?)(?=^## |\Z)', (REPO / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return text
