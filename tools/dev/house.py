"""Prints the size of the house: lines of each floor, long functions and modules, imports of the application.

Example:
  python tools/dev/house.py
"""

import argparse
import ast
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = ('.py', '.html', '.jinja', '.json')
FACES = ('__init__.py', '__main__.py', 'annotations.py', 'apis.py', 'install_openmmlab.py')


def tracked(folder: str, kinds: Sequence[str] = KINDS) -> list[Path]:
    """Returns the files of a folder that git knows and that count."""
    names = subprocess.check_output(['git', 'ls-files', folder], cwd=ROOT, text=True).split()
    return [ROOT / name for name in names if name.endswith(tuple(kinds))]


def lines_of(paths: Sequence[Path]) -> int:
    return sum(len(path.read_text().splitlines()) for path in paths)


def functions_of(path: Path) -> Iterator[tuple[int, int, str]]:
    """Yields lines without the docstring, parameters without ``self``, and name of each function of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno - 1
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len(names) - (names[:1] in (['self'], ['cls']))
            yield node.end_lineno - start, count, f'{path.relative_to(ROOT)}:{node.name}'


def imports_of_app(path: Path) -> Iterator[str]:
    """Yields the imports of the application in a module outside it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and f'{node.module}.'.startswith('icconv_mm.app.'):
            yield f'{path.relative_to(ROOT)}:{node.lineno}'


def main(argv: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    package, runtime = tracked('icconv_mm'), tracked('icconv_mm_runtime')
    app = [path for path in package if ROOT / 'icconv_mm/app' in path.parents]
    extension = [path for path in package if path not in app]
    for name, paths in (
        ('extension', extension),
        ('application and runtime', app + runtime),
        ('tests', tracked('tests', ('.py', '.html', '.jinja'))),
        ('tools', tracked('tools')),
    ):
        print(f'{name}: {lines_of(paths)} lines in {len(paths)} files')
    modules = [path for path in (*package, *runtime) if path.suffix == '.py']
    large = sorted(((lines_of([path]), str(path.relative_to(ROOT))) for path in modules), reverse=True)
    print(f'modules over 400 lines: {sum(lines > 400 for lines, _ in large)}, the largest {large[0]}')
    functions = [function for path in (*app, *runtime) if path.suffix == '.py' for function in functions_of(path)]
    print(f'longest function of application and runtime: {max(functions)}')
    print(f'most parameters: {sorted(functions, key=lambda row: -row[1])[:5]}')
    faces = {ROOT / 'icconv_mm' / name for name in FACES}
    outside = [path for path in extension if path.suffix == '.py' and path not in faces]
    lines = [line for path in outside for line in imports_of_app(path)]
    print(f'imports of the application from outside, but the faces: {len(lines)} {lines}')


if __name__ == '__main__':
    main()
