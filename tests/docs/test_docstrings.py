"""What is public says what it takes and has."""

import ast
import re

from pages import REPO


def unannotated(body: list[ast.stmt], owner: str = '') -> list[str]:
    """The public functions below a node that have parameters without a type, by name."""
    names = []
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
            names += unannotated(node.body, f'{node.name}.')
        elif isinstance(node, ast.FunctionDef) and (node.name == '__init__' or not node.name.startswith('_')):
            is_static = any(
                isinstance(decorator, ast.Name) and decorator.id == 'staticmethod' for decorator in node.decorator_list
            )
            parameters = [*node.args.posonlyargs, *node.args.args][bool(owner) and not is_static :]
            if any(parameter.annotation is None for parameter in [*parameters, *node.args.kwonlyargs]):
                names.append(f'{owner}{node.name}')
    return names


def test_public_functions_say_what_they_take():
    sources = [path for folder in ('icconv_mm', 'tools') for path in (REPO / folder).rglob('*.py')]
    sources = [path for path in sources if not path.name.endswith('_sets.py')]  # scripts for other tools' environments
    missing = {str(path.relative_to(REPO)): unannotated(ast.parse(path.read_text()).body) for path in sources}
    assert {path: names for path, names in missing.items() if names} == {}
    assert unannotated(ast.parse('def f(a: int, *, b): ...\nclass C:\n    def g(self, x: int): ...').body) == ['f']


SECTION = re.compile(r'^( *)(Args|Attributes):\n((?:\1    .*\n|\n)+)', re.MULTILINE)


def stale(source: str) -> list[str]:
    """Names in ``Args`` and ``Attributes`` of a class's docstring that it lacks; ruff's DOC102 sees functions alone."""
    stale_names = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        identifiers = {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}
        identifiers |= {child.arg for child in ast.walk(node) if isinstance(child, ast.arg)}
        identifiers |= {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
        identifiers |= {child.name for child in ast.walk(node) if isinstance(child, ast.FunctionDef)}
        # arguments may be those of a base
        takes_more = node.bases or any(isinstance(child, ast.arguments) and child.kwarg for child in ast.walk(node))
        for indent, section, text in SECTION.findall((ast.get_docstring(node) or '') + '\n'):
            names = re.findall(rf'^{indent}    ((?:\*{{0,2}}\w+)(?:, \*{{0,2}}\w+)*): ', text, re.MULTILINE)
            words = [word.strip(' *') for name in names for word in name.split(',')]
            if not (takes_more and section == 'Args'):
                stale_names += [f'{node.name}: {word}' for word in words if word not in identifiers]
    return stale_names


def test_docstrings_of_classes_name_what_there_is():
    folders = ('icconv_mm', 'icconv_mm_runtime', 'tools')
    sources = [path for folder in folders for path in (REPO / folder).rglob('*.py')]
    stale_names = {str(path.relative_to(REPO)): stale(path.read_text()) for path in sources}
    assert {path: names for path, names in stale_names.items() if names} == {}
    assert stale('class F:\n    """F.\n\n    Attributes:\n        b: No.\n    """\n    a = 1\n') == ['F: b']
