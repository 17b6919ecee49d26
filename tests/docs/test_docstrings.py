"""What is public says what it takes."""

import ast

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
