"""Finds who uses a function in a tree of modules, whatever name an import gives it."""

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

WRITES = 'open(w)'  # a call of `open` in a mode that writes, of a path's method as well
SHOWS = 'compare(score, threshold)'
_WRITING = set('wax+')
_LEAST = re.compile(r'thr|least', re.IGNORECASE)


@dataclass(frozen=True)
class Owner:
    """The modules that alone may do something.

    Attributes:
        truth: What they do.
        modules: Their dotted names; one that ends with a dot stands for a package and what is in it.
        names: Functions by dotted name (``cv2.imdecode``), methods of any object (``.write_bytes``), :data:`WRITES`,
            a text in the source (``text(last_checkpoint)``).
        planted: Lines of a module that does the owner's work under another name.
    """

    truth: str
    modules: Sequence[str]
    names: Sequence[str]
    planted: str

    def owns(self, module: str) -> bool:
        """Returns whether a module is one of the owner's."""
        return any(module == own or (own.endswith('.') and f'{module}.'.startswith(own)) for own in self.modules)

    def others(self, root: Path, packages: Sequence[str]) -> list[str]:
        """Returns ``module:line: name`` for each use in the packages below a folder, but for the owner's own."""
        found = []
        for package in packages:
            for path in sorted((root / package).rglob('*.py')):
                module = '.'.join(path.relative_to(root).with_suffix('').parts).removesuffix('.__init__')
                if not self.owns(module):
                    tree = ast.parse(path.read_bytes())
                    found += [f'{module}:{line}: {name}' for name, line in uses(tree) if self._is_named(name)]
        return found

    def _is_named(self, name: str) -> bool:
        if self.owns(name.rpartition('.')[0]):  # a function of the owner's
            return False
        return any(name == own or (own.startswith('.') and name.endswith(own)) for own in self.names)


def uses(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yields the dotted name and the line of everything that a module names, with imported names written out."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.split('.')[0]] = (
                    alias.name if alias.asname else alias.name.split('.')[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                known[alias.asname or alias.name] = f'{node.module}.{alias.name}'
                yield f'{node.module}.{alias.name}', node.lineno
    annotations = [getattr(node, name, None) for node in ast.walk(tree) for name in ('annotation', 'returns')]
    types = {part for annotation in annotations if annotation for part in ast.walk(annotation)}
    for node in ast.walk(tree):
        if node in types:
            continue
        if isinstance(node, ast.Attribute):
            yield _dotted(node, known), node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield f'text({node.value})', node.lineno
        elif isinstance(node, ast.Name) and node.id in known:
            yield known[node.id], node.lineno
        elif isinstance(node, ast.Call) and _writes(node):
            yield WRITES, node.lineno
        elif isinstance(node, ast.Compare) and _selects(node):
            yield SHOWS, node.lineno


def _dotted(node: ast.expr, known: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f'{_dotted(node.value, known)}.{node.attr}'
    return known.get(node.id, node.id) if isinstance(node, ast.Name) else '?'


def _selects(comparison: ast.Compare) -> bool:
    """Returns whether scores are compared with a threshold."""
    text = ast.unparse(comparison)
    is_order = isinstance(comparison.ops[0], (ast.Gt, ast.GtE, ast.Lt, ast.LtE))
    return is_order and 'score' in text.lower() and bool(_LEAST.search(text))


def _writes(call: ast.Call) -> bool:
    """Returns whether a call opens a file to write."""
    is_method = isinstance(call.func, ast.Attribute)
    if (call.func.attr if is_method else getattr(call.func, 'id', '')) not in ('open', 'fdopen'):
        return False
    modes = [word.value for word in call.keywords if word.arg == 'mode']
    modes += call.args[:1] if is_method and len(call.args) == 1 else call.args[1:2]
    return any(isinstance(mode, ast.Constant) and bool(_WRITING & set(str(mode.value))) for mode in modes)
