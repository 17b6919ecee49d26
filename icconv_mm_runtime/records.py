"""Keeps the results of images on the disk, line by line as they come, until they are joined to COCO files."""

import hashlib
import json
import os
import secrets
import shutil
import signal
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.files import dump_json, locked

_FOLDER = '.results'  # in the folder of the results, until all are there
_BLOCK = 1 << 16  # bytes


class ResultLog:
    """The results of a process, of one or of several that share the images out; the last one that ends joins all.

    A process that is killed leaves its lines, from which it goes on with ``resume``.

    Args:
        out: The folder of the results, which all processes reach.
        settings: What the results depend on. Those of former processes with other settings are not read.
        paths: All images. The results of one are not read if its file has another size in bytes by then.
        shard: The number of this process, from 1, and how many there are.
        resume: Whether to keep what a former process of this number has left.

    Attributes:
        done: Paths of the images that are kept.
        has_others: Whether processes with other settings have left results.

    Raises:
        RuntimeInputError: The number is not one of 1 to N, or another process of this number is at work.
        OSError: The folder cannot be written.
    """

    def __init__(
        self,
        out: Path,
        settings: Iterable[Any],
        paths: Sequence[Path] = (),
        shard: tuple[int, int] = (1, 1),
        resume: bool = False,
    ) -> None:
        (self.number, self.count), self._paths = shard, paths
        if not 1 <= self.number <= self.count:
            raise RuntimeInputError(f'shard: expected I/N, I from 1 to N, got {self.number}/{self.count}')
        key = hashlib.sha256(json.dumps([*map(str, [*settings, *paths]), self.count]).encode()).hexdigest()[:12]
        self.folder = out / _FOLDER / key
        self._restore()
        self.folder.mkdir(parents=True, exist_ok=True)
        self._own = self.share()
        self._sizes = [_size(path) for path in self._own]  # before they are read
        file, self._closing = self.folder / f'{self.number}.jsonl', ExitStack()
        self._file = file.open('ab')
        self._closing.callback(self._file.close)
        if self._closing.enter_context(locked(file)) is False:
            self._closing.close()
            raise RuntimeInputError(f'{out}: another process predicts the same images into it')
        kept = [line for _, line in self._lines(self.number) if self._is_same(json.loads(line))] if resume else []
        self._file.truncate(0)
        self._file.writelines(kept)
        self._file.flush()
        self.done = {json.loads(line)['path'] for line in kept}
        self.has_others = any(path.name.split('.')[0] != key for path in self.folder.parent.iterdir())
        (self.folder / f'{self.number}.json').unlink(missing_ok=True)

    def share(self, number: int | None = None) -> Sequence[Path]:
        """Returns the images of a process, by default of this one, which are one after the other."""
        number, images = number or self.number, len(self._paths)
        return self._paths[images * (number - 1) // self.count : images * number // self.count]

    def add(self, number: int, path: str | Path, row: Mapping[str, Any]) -> None:
        """Appends the results of an image of this process.

        Args:
            number: Its index among the images of this process, from 0.
            path: Its file, or the name of a frame.
            row: ``image``, its entry in the list of images; ``records`` of each task; and what else is joined.
        """
        size = self._sizes[number] if number < len(self._sizes) else 0
        mark = _mark_of(self._own[number]) if number < len(self._sizes) else 0
        line = json.dumps({'number': number, 'path': str(path), 'bytes': size, 'mark': mark, **row})
        self._file.write(line.encode() + b'\n')
        self._file.flush()

    def rows(self) -> Iterator[dict]:
        """Yields the rows of all processes that have ended and of this one, in the order of the images."""
        for number in range(1, self.count + 1):
            if number == self.number or self._is_there(number):
                yield from (json.loads(line) for _, line in self._lines(number))

    def finish(self, is_complete: bool = True) -> bool:
        """Leaves the results for the last process; returns whether this is it, and :meth:`rows` has those of all.

        Args:
            is_complete: Whether no image of this process has failed; if one has, :meth:`close` keeps its lines.
        """
        mark = {'sizes': self._sizes, 'is_complete': is_complete}
        dump_json(self.folder / f'{self.number}.json', mark)
        if self.count_there() < self.count:
            return False
        joining = self.folder.with_name(f'{self.folder.name}.{secrets.token_hex(4)}.joining')
        try:  # of processes that see all parts at once, one locks and renames them
            if self._closing.enter_context(locked(self.folder)) is False:
                return False
            os.rename(self.folder, joining)
        except FileNotFoundError:
            return False
        self.folder = joining
        return True

    def count_there(self) -> int:
        """Returns how many processes have left their results."""
        return sum(map(self._is_there, range(1, self.count + 1)))

    def close(self, is_written: bool) -> None:
        """Ends the work: removes the lines once the files of all are written, or keeps them, to go on from them."""
        marks = [self._mark(number) for number in range(1, self.count + 1)] if is_written else [None]
        if all(mark and mark['is_complete'] for mark in marks):
            self.discard()
            return
        self._closing.close()
        original = self.folder.with_name(self.folder.name.split('.')[0])
        if self.folder != original:
            os.rename(self.folder, original)

    def discard(self) -> None:
        """Ends the work and removes the lines."""
        self._closing.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()

    def _restore(self) -> None:
        """Gives back the lines that a process was joining when it was killed."""
        for left in self.folder.parent.glob(f'{self.folder.name}.*.joining'):
            with suppress(OSError), locked(left) as is_locked:
                if is_locked and not self.folder.exists():
                    os.rename(left, self.folder)

    def _lines(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Yields index and line of the images of a process, by index; what was cut or has changed is left out."""
        starts, sizes = {}, [_size(path) for path in self.share(number)]
        with open(self.folder / f'{number}.jsonl', 'rb') as file:
            while line := file.readline():
                with suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    index = row['number']
                    if line.endswith(b'\n') and row['bytes'] == (sizes[index] if index < len(sizes) else 0):
                        starts[index] = file.tell() - len(line)
            for index, start in sorted(starts.items()):
                file.seek(start)
                yield index, file.readline()

    def _is_same(self, row: dict) -> bool:
        """Returns whether the image of a row is as it was."""
        index = row['number']
        return index < len(self._sizes) and row.get('mark') == _mark_of(self._own[index])

    def _mark(self, number: int) -> dict | None:
        try:
            return json.loads((self.folder / f'{number}.json').read_bytes())
        except (OSError, ValueError):
            return None

    def _is_there(self, number: int) -> bool:
        """Returns whether a process has left its results, and its images have as many bytes as then."""
        mark = self._mark(number)
        return mark is not None and mark['sizes'] == [_size(path) for path in self.share(number)]


def _size(path: Path) -> int:
    """Returns the bytes of a file, 0 without it; processes may have copies of other times on their own disks."""
    return path.stat().st_size if path.is_file() else 0


def _mark_of(path: Path) -> int:
    """Returns a checksum of the beginning, the middle and the end of a file, 0 without it."""
    size, mark = _size(path), 0
    if size:
        with open(path, 'rb') as file:
            for offset in (0, size // 2, max(0, size - _BLOCK)):
                file.seek(offset)
                mark = zlib.crc32(file.read(_BLOCK), mark)
    return mark


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Makes SIGTERM, by which batch systems and containers end a process, interrupt the block as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
