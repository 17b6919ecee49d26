"""Docstrings can be read away from the code: an argument's line begins with what it is, on the site and in ``help``."""

import ast
import re

from pages import REPO

# 'stride: Of both axes.' has no noun, 'checkpoint: Its weights.' an owner that is somewhere above
_ELLIPTIC = re.compile(r'[*\w]+(?:, [*\w.]+)*: (?:Of|Its|Their|Those|Which|Where|How|As (?:of|for|in))\b')
_SECTION = re.compile(r'^(?:Args|Attributes):\n((?:    .*\n?)+)', re.MULTILINE)


def elliptic(text: str) -> list[str]:
    """The entries of arguments and attributes in the source of a module that begin without their noun."""
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef | ast.FunctionDef))
    sections = [section for doc in map(ast.get_docstring, nodes) for section in _SECTION.findall(doc or '')]
    return [line.strip() for each in sections for line in each.splitlines() if _ELLIPTIC.match(line.strip())]


def test_arguments_begin_with_their_noun():
    sources = [path for folder in ('icconv_mm', 'tools') for path in (REPO / folder).rglob('*.py')]
    found = {str(path.relative_to(REPO)): lines for path in sources if (lines := elliptic(path.read_text()))}
    assert found == {}


def test_the_check_finds_them():
    arguments = 'stride: Of both axes.', 'groups: Groups of the channels.'
    source = '\n        '.join(['def f():\n    """F.\n\n    Args:', *arguments, '"""'])
    assert elliptic(source) == [arguments[0]]
