"""What is public can be read away from the code: an argument's line begins with what it is, on the site and in
``help``, and has a type."""

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


def unannotated(body: list[ast.stmt], owner: str = '') -> list[str]:
    """The public functions below a node that have parameters without a type, by name."""
    found = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            found += unannotated(node.body, f'{node.name}.')
        elif isinstance(node, ast.FunctionDef) and (node.name == '__init__' or not node.name.startswith('_')):
            is_static = any(isinstance(each, ast.Name) and each.id == 'staticmethod' for each in node.decorator_list)
            parameters = [*node.args.posonlyargs, *node.args.args][bool(owner) and not is_static :]
            if any(each.annotation is None for each in [*parameters, *node.args.kwonlyargs]):
                found.append(f'{owner}{node.name}')
    return found


def test_public_functions_say_what_they_take():
    sources = [path for folder in ('icconv_mm', 'tools') for path in (REPO / folder).rglob('*.py')]
    found = {str(path.relative_to(REPO)): unannotated(ast.parse(path.read_text()).body) for path in sources}
    assert {path: names for path, names in found.items() if names} == {}
    assert unannotated(ast.parse('def f(a: int, *, b): ...\nclass C:\n    def g(self, x: int): ...').body) == ['f']


def test_errors_of_users_are_named_as_they_are_raised():
    """Not by the kind of Python's that they also are; operators, and who reads damaged files, raise that itself."""
    plain = re.compile(r'^ +(?:\w+, )*(ValueError|FileNotFoundError|ImportError)(?:, [\w.]+)*: ', re.MULTILINE)
    sources = [path for folder in ('icconv_mm', 'tools') for path in (REPO / folder).rglob('*.py')]
    texts = {str(path.relative_to(REPO)): path.read_text() for path in sources}
    found = {
        name: [kind for kind in plain.findall(text) if f'raise {kind}(' not in text]
        for name, text in texts.items()
        if not name.startswith(('icconv_mm/ops/', 'icconv_mm/checkpoints/reader/'))
    }
    assert {name: kinds for name, kinds in found.items() if kinds} == {}
    assert plain.findall('        OSError, ValueError: It is damaged.') == ['ValueError']
