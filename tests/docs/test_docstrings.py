"""What is public says what it takes and has."""

import ast
import re

from pages import REPO


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
    sources = [path for path in sources if not path.name.endswith('_sets.py')]  # scripts for other tools' environments
    found = {str(path.relative_to(REPO)): unannotated(ast.parse(path.read_text()).body) for path in sources}
    assert {path: names for path, names in found.items() if names} == {}
    assert unannotated(ast.parse('def f(a: int, *, b): ...\nclass C:\n    def g(self, x: int): ...').body) == ['f']


SECTION = re.compile(r'^( *)(Args|Attributes):\n((?:\1    .*\n|\n)+)', re.MULTILINE)


def stale(source: str) -> list[str]:
    """Names in ``Args`` and ``Attributes`` of a class's docstring that it lacks; ruff's DOC102 sees functions alone."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        known = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
        known |= {each.arg for each in ast.walk(node) if isinstance(each, ast.arg)}
        known |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
        known |= {each.name for each in ast.walk(node) if isinstance(each, ast.FunctionDef)}
        # arguments may be those of a base
        takes_more = node.bases or any(isinstance(each, ast.arguments) and each.kwarg for each in ast.walk(node))
        for indent, section, text in SECTION.findall((ast.get_docstring(node) or '') + '\n'):
            names = re.findall(rf'^{indent}    ((?:\*{{0,2}}\w+)(?:, \*{{0,2}}\w+)*): ', text, re.MULTILINE)
            words = [word.strip(' *') for each in names for word in each.split(',')]
            if not (takes_more and section == 'Args'):
                found += [f'{node.name}: {word}' for word in words if word not in known]
    return found


def test_docstrings_of_classes_name_what_there_is():
    folders = ('icconv_mm', 'icconv_mm_runtime', 'tools')
    sources = [path for folder in folders for path in (REPO / folder).rglob('*.py')]
    found = {str(path.relative_to(REPO)): stale(path.read_text()) for path in sources}
    assert {path: names for path, names in found.items() if names} == {}
    assert stale('class F:\n    """F.\n\n    Attributes:\n        b: No.\n    """\n    a = 1\n') == ['F: b']
