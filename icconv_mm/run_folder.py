"""The folder of a training: what is the checkpoint to go on from, the best one, and the config, wherever it now lies.

Files of a folder name each other by absolute paths, as mmengine writes them. A folder that was copied or moved reads
its own files: a name stands for the file of that name in this folder, and only without one for the path as written.
"""

import ast
import itertools
import os
import shutil
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PureWindowsPath
from typing import Any

from icconv_mm.errors import ArgumentError, MissingFileError, UserError
from icconv_mm.files import alone_in, atomic_write, copy_annotations, read_small, require_file

RUN_LOCK = '.run.lock'  # held by the process that writes into the folder
CHOICES = '.choices.json'  # suffix of the file beside a written config, in place of '.py'
_AT_WORK = 'another run is at work'
LAST = 'last_checkpoint'  # holds the path of a checkpoint; mmengine reads it as well
# Path of the config file that runs the expression; mmengine compiles a config under its own file name.
HERE = '(lambda: None).__code__.co_filename'
# The folder of the images in a config: mmengine parses a config with an import statement differently.
IMAGES = "images = __import__('icconv_mm.files').files.folder_of_images(annotations)"
BESIDE = f"__import__('os').path.dirname({HERE})"  # the folder of the config
_KNOWN = {ast.dump(ast.parse(text, mode='eval').body) for text in (BESIDE, IMAGES.partition(' = ')[2])}
_CALLS = {'dict', 'list', 'tuple', 'set', 'float'}
_FOLDERS = ('annotations', 'images')  # which a written config finds


def same_name_in(named: str, folders: Iterable[str | Path]) -> Path | None:
    """Returns the file that has the name of ``named``, a path of any system, in the first of ``folders`` with one."""
    if '://' in named:
        return None
    names = dict.fromkeys([Path(named).name, PureWindowsPath(named).name])
    paths = (Path(folder, name) for folder in folders for name in names if name not in ('', '..'))
    return next(filter(os.path.exists, paths), None)  # False for what is no path


def write_last(folder: str | Path, checkpoint: str) -> None:
    """Writes atomically which checkpoint a training of this folder goes on from."""
    with atomic_write(Path(folder, LAST)) as file:
        file.write(os.fsencode(checkpoint))


def last_checkpoint(folder: str | Path) -> str | None:
    """Returns the checkpoint that a training of this folder goes on from; None if it has saved none.

    Raises:
        ArgumentError: ``last_checkpoint`` holds no path, or the checkpoint does not exist; the message names the newest
            existing one.
    """
    file = Path(folder, LAST)
    if not os.path.lexists(file):
        return None
    there = sorted(Path(folder).glob('*.pth'), key=lambda path: path.stat().st_mtime)
    newest = f'the newest one there is: {there[-1]}' if there else 'there is no other'
    try:
        text = os.fsdecode(read_small(file, LAST)).strip()
    except UserError as error:
        raise ArgumentError('resume', f'{error}; {newest}') from error
    if text.startswith(('http://', 'https://')):  # no run saves its checkpoints there
        raise ArgumentError('resume', f'{file} names {text:.200}: give it yourself')
    if '://' in text:
        return text
    if path := same_name_in(text, [folder]):
        return os.path.abspath(path)
    if os.path.exists(text) and os.path.basename(text) not in ('', '.', '..'):
        return text
    raise ArgumentError('resume', f'{file} names {text[:200] or "nothing"}, which is gone; {newest}')


def checkpoint_of(path: str | Path) -> str:
    """Returns the path of a checkpoint; of the folder of a training, its newest best one, or else its last one.

    Raises:
        MissingFileError: It does not exist, or the folder has none.
    """
    folder = Path(path)
    if not folder.is_dir():
        require_file(path, 'checkpoint')
        return str(path)
    checkpoints = [*folder.glob('best_*.pth')]
    with suppress(ArgumentError):
        last = None if checkpoints else last_checkpoint(folder)
        checkpoints = (
            checkpoints or [folder / Path(last).name] if last and same_name_in(last, [folder]) else checkpoints
        )
    checkpoints = checkpoints or [*folder.glob('*.pth')]
    if not checkpoints:
        below = sorted({str(path.parent) for path in folder.glob('*/*.pth')})
        more = f'; folders in it have some: {", ".join(below[:8])}' if below else ''
        raise MissingFileError(f'checkpoint: none (*.pth) in the folder {path}{more}')
    return str(max(checkpoints, key=lambda file: file.stat().st_mtime_ns))


def set_aside(folder: Path, config: str) -> Path | None:
    """Moves the checkpoints and the report of a training into a new folder in its own, and returns that.

    It is a folder of a training like the first, with copies of the config and what that reads.

    Args:
        folder: The folder of the training.
        config: Name of mmengine's copy of its config.

    Returns:
        The new folder; None if there is no checkpoint.
    """
    checkpoints = [path for name in ('best_*', 'epoch_*', 'iter_*') for path in folder.glob(f'{name}.pth')]
    if not checkpoints:
        return None
    earlier = next(path for number in itertools.count(1) if not (path := folder / f'earlier_{number}').exists())
    earlier.mkdir()
    if (copy := folder / config).is_file():
        shutil.copyfile(copy, earlier / config)  # it may be what is trained now
        text = copy.read_text(errors='replace')
        for moved in folder.glob('annotations_*'):
            if moved.name in text:
                copy_annotations(moved, earlier / moved.name)
        for moved in folder.glob('*.json'):
            if f"'/{moved.name}'" in text:  # a pattern
                shutil.copyfile(moved, earlier / moved.name)
    others = (LAST, 'report.html', 'report.json', 'time.json')
    for path in (*checkpoints, *(folder / name for name in others)):
        if path.is_file():
            path.rename(earlier / path.name)
    return earlier


@contextmanager
def keeping_earlier_training(folder: Path, config: str, start: str | None, goes_on: bool) -> Iterator[None]:
    """Keeps the checkpoints of an earlier training with their config while another one works in its folder.

    A new training moves them into a folder of their own. A training that goes on (it resumes, or ``start``, its first
    checkpoint, lies in the folder) and ends before it has saved anything leaves ``config``, mmengine's copy, as it was.
    """
    rank = os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or '0'
    if rank != '0' or not folder.is_dir():
        yield
        return
    begins_elsewhere = start is None or '://' in start or folder.resolve() not in Path(start).resolve().parents
    if not goes_on and begins_elsewhere:
        with alone_in(folder, _AT_WORK, RUN_LOCK):
            if (moved := set_aside(folder, config)) is not None:
                from mmengine.logging import print_log  # which the help of a tool does not need

                print_log(f'the earlier training in {folder} is in {moved} now', 'current')
    last = folder / LAST
    before = [path.read_bytes() if path.is_file() else None for path in (folder / config, last)]
    try:
        yield
    except BaseException:
        if before[0] is not None and (last.read_bytes() if last.is_file() else None) == before[1]:
            with atomic_write(folder / config) as file:
                file.write(before[0])
        raise


@contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Locks the folder of a run against other runs, which would mix their checkpoints."""
    with alone_in(folder, _AT_WORK, RUN_LOCK):
        for path in folder.glob('.*.part'):  # of a run that was killed while it saved
            path.unlink() if path.is_file() else None
        yield


def configs_beside(
    checkpoint: str | Path, text_in: Callable[[str | Path], str | None]
) -> tuple[list[Path], list[Path]]:
    """Returns the configs beside a checkpoint that a training wrote, and the other files ``*.py``.

    The former are equal, but for the paths of files, to what mmengine has written beside its log, or else into the
    checkpoint. They are data, of which nothing runs but what finds files. A script or the config of another network
    that happens to lie there is none of them.

    Args:
        checkpoint: Its file.
        text_in: Returns the text of the config in a checkpoint, None if it has none.
    """
    folder = Path(checkpoint).absolute().parent
    files = sorted(folder.glob('*.py'))
    data = {path: values for path in files if (values := _values(_text_of(path))) is not None}
    # the folder of an earlier training lies in the one with its logs
    logs = [path for place in (folder, folder.parent) for path in place.glob('*/vis_data/config.py')] if data else []
    written = _equal_to(data, map(_text_of, logs))
    if data and len(written) != 1:
        written = _equal_to(data, [text_in(checkpoint)]) or written
    return written, [path for path in files if path not in written]


def _equal_to(data: Mapping[Path, Mapping[str, ast.expr]], texts: Iterable[bytes | str | None]) -> list[Path]:
    """Returns the configs that are equal to one of the texts."""
    dumped = [values for values in map(_values, dict.fromkeys(texts)) if values is not None]
    with suppress(RecursionError):
        return [
            path
            for path, values in data.items()
            if any(_is_equal(values, values_of_other) for values_of_other in dumped)
        ]
    return []


def _text_of(path: Path) -> bytes | None:
    try:
        return read_small(path, 'config')
    except UserError:
        return None


def _values(text: str | bytes | None) -> dict[str, ast.expr] | None:
    """Returns the values of a config by name; None unless they are plain data, and names those of :data:`_FOLDERS`."""
    values: dict[str, ast.expr] = {}
    try:
        for node in ast.parse(text or '').body:
            if not isinstance(node, ast.Assign) or not all(isinstance(target, ast.Name) for target in node.targets):
                return None
            if not _is_data(node.value, values):
                return None
            values.update((target.id, node.value) for target in node.targets)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    is_config = 'model' in values and '_base_' not in values and _CALLS.isdisjoint(values)
    return values if is_config else None


def _is_equal(written: Any, dumped: Any) -> bool:
    """Returns whether two parts of configs are equal; the former may find a file where the latter has its path."""
    if _is_found(written):
        return isinstance(dumped, ast.Constant) and isinstance(dumped.value, str)
    if isinstance(written, ast.AST):
        return type(written) is type(dumped) and _is_equal(
            dict(ast.iter_fields(written)), dict(ast.iter_fields(dumped))
        )
    if isinstance(written, dict):
        added = {name for name in _FOLDERS if _is_found(written.get(name))}
        is_same = isinstance(dumped, dict) and written.keys() - added == dumped.keys() - added
        return is_same and all(_is_equal(written[key], dumped[key]) for key in written.keys() - added)
    if isinstance(written, list):
        return isinstance(dumped, list) and len(written) == len(dumped) and all(map(_is_equal, written, dumped))
    return written == dumped


def _is_found(node: Any) -> bool:
    """Returns whether an expression finds a file or a folder of the config, as :data:`BESIDE` and :data:`IMAGES` do."""
    if isinstance(node, ast.BinOp):
        is_below = isinstance(node.right, ast.Constant) and str(node.right.value).startswith('/')
        return is_below and _is_found(node.left)
    if isinstance(node, ast.Name):
        return node.id in _FOLDERS
    return isinstance(node, ast.Call) and ast.dump(node) in _KNOWN


def _is_data(node: ast.expr, names: Container[str]) -> bool:
    """Returns whether an expression is one of those in the configs that mmengine and this package write."""
    if isinstance(node, ast.Constant) or ast.dump(node) in _KNOWN:
        return True
    if isinstance(node, ast.Name):
        return node.id in names and node.id in _FOLDERS
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id not in _CALLS:
            return False
    elif not isinstance(node, (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.keyword, ast.BinOp, ast.UnaryOp)):
        return False
    parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, (ast.expr, ast.keyword))]
    return all(_is_data(part, names) for part in parts if part is not getattr(node, 'func', None))
