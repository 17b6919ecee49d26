"""Finds the folder that the names of images in an annotation file are relative to: one for all names of a file."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path

_Root = tuple[Path, int]  # a folder, and the number of first folders of a name that are dropped
_MOST_DROPPED = 16
_SAMPLE = 1000  # folders of names that are looked up to choose a root
_Names = dict[tuple[str, ...], dict[str, str]]  # by the folders of a name, and by its last part


def files_of_names(
    names: Iterable[str], near: Sequence[Path], names_in: Callable[[Path], Collection[str]]
) -> dict[str, Path]:
    """Returns the files of names that lie below one folder; names without a file there are skipped.

    That folder has most of the names: a second one is only asked for the names that the first has not, and never gives
    a file that another name has. So ``images/a.jpg`` is not the ``a.jpg`` in a folder ``images`` of all images.

    Args:
        names: Names with any folders before them, of which the first ones may be those of another machine.
        near: The folders that may be it; of several that have as many names, the first.
        names_in: Returns the names of the files in a folder.
    """
    waiting: _Names = {}
    for name in names:
        *folders, base = [part for part in name.split('/') if part not in ('', '.')] or ['']
        waiting.setdefault(('/',) * name.startswith('/') + tuple(folders), {})[base] = name
    deepest = min(max(map(len, waiting), default=0), _MOST_DROPPED)
    roots = [(folder, dropped) for dropped in range(deepest + 1) for folder in dict.fromkeys(near)]
    paths: dict[str, Path] = {}
    taken: set[Path] = set()
    while roots and (waiting := {folders: bases for folders, bases in waiting.items() if bases}):
        best, roots = _best(roots, waiting, names_in)
        for folders, location, bases in list(_below(*best, waiting, names_in)) if best else ():
            for base in bases:
                name = waiting[folders].pop(base)
                if (path := location / base) not in taken:
                    taken.add(path)
                    paths[name] = path
    return paths


def _best(
    roots: Sequence[_Root], waiting: _Names, names_in: Callable[[Path], Collection[str]]
) -> tuple[_Root | None, list[_Root]]:
    """Returns the root of most names, None if no root has one, and the others that have some; of many, by a sample."""
    sample = dict(list(waiting.items())[:: -(-len(waiting) // _SAMPLE)])
    total, counts = sum(map(len, sample.values())), {}
    for root in roots:
        counts[root] = sum(len(bases) for *_, bases in _below(*root, sample, names_in))
        if counts[root] == total:
            break
    best = max((root for root in roots if counts.get(root)), key=counts.get, default=None)
    return best, [root for root in roots if root != best and counts.get(root, 1)]


def _below(
    root: Path, dropped: int, waiting: _Names, names_in: Callable[[Path], Collection[str]]
) -> Iterator[tuple[tuple[str, ...], Path, Collection[str]]]:
    """Yields the folders of names, where they lie below a root without the first ones, and the last parts there."""
    tails = Counter(folders[dropped:] for folders in waiting if len(folders) >= dropped)
    for folders, bases in waiting.items():
        if len(folders) >= dropped and tails[folders[dropped:]] == 1:
            location = root.joinpath(*folders[dropped:])
            if there := bases.keys() & names_in(location):
                yield folders, location, there
