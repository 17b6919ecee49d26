"""Shares images out among processes, and joins what they have predicted in one file."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from icconv_mm.errors import ArgumentError
from icconv_mm.files import write_json
from icconv_mm.runner.coco_results import CocoResults
from icconv_mm.runner.config import TaskRun, as_run

_FOLDER = '.shards'  # in the folder of the results, until all are there


class Shards:
    """One of the processes that share images out; the last one that ends joins what all have predicted.

    Args:
        out: The folder of the results, which all processes reach.
        shard: The number of this process, from 1, and how many there are.
        checkpoint: The file of the network.
        settings: What else the results depend on. Those of former processes with other settings are not joined.
        paths: All images. A part is not joined if one of its own has another size in bytes by then.

    Raises:
        ArgumentError: The number is not one of 1 to N.
    """

    def __init__(
        self, out: Path, shard: tuple[int, int], checkpoint: str, settings: Iterable[Any], paths: Sequence[Path]
    ) -> None:
        self.number, self.count = shard
        self._paths = paths
        if not 1 <= self.number <= self.count:
            raise ArgumentError('shard', f'expected I/N, I from 1 to N, got {self.number}/{self.count}')
        whole = hashlib.sha256(json.dumps([*map(str, [*settings, *paths]), self.count]).encode())
        for path in (Path(checkpoint), Path(checkpoint).with_suffix('.bin')):  # the weights of OpenVINO's format
            whole.update(path.read_bytes() if path.is_file() else b'')
        self.folder = out / _FOLDER / whole.hexdigest()[:12]

        self._sizes = [_size(path) for path in self.share()]  # before they are read

    def share(self, number: int | None = None) -> Sequence[Path]:
        """Returns the images of a process, by default of this one, which are one after the other."""
        number, images = number or self.number, len(self._paths)
        return self._paths[images * (number - 1) // self.count : images * number // self.count]

    def join(self, images: dict[Path, dict], parts: Sequence[CocoResults], is_complete: bool) -> bool:
        """Leaves the results of this process for the last one; returns whether it is the last, and has those of all.

        The parts stay where they are if images of one have failed: its process can run again. A part is none if its
        images have other sizes in bytes by then.

        Args:
            images: Information about each image, to which that of the others is added.
            parts: The results of each task, to which those of the others are added, in the order of the images.
            is_complete: Whether no image of this process has failed.
        """
        about = {str(path): own for path, own in images.items()}
        own = {'images': about, 'parts': [each.records for each in parts], 'is_complete': is_complete}
        write_json(self.folder / f'{self.number}.json', own)
        write_json(self.folder / f'{self.number}.sizes.json', self._sizes)
        numbers = range(1, self.count + 1)
        there = sum(map(self._is_there, numbers))
        if there < self.count:
            print_log(f'{there} of {self.count} parts are there; the last one writes the files', 'current')
            return False
        joining = self.folder.with_suffix('.joining')
        try:
            with suppress(FileNotFoundError):  # of a process that was killed as it joined
                shutil.rmtree(joining)
            os.rename(self.folder, joining)  # one process alone succeeds
        except FileNotFoundError:
            return False
        images.clear()
        for part in parts:
            part.records.clear()
        for number in numbers:
            content = json.loads((joining / f'{number}.json').read_bytes())
            images |= {Path(path): own for path, own in content['images'].items()}
            is_complete &= content['is_complete']
            for part, records in zip(parts, content['parts'], strict=True):
                part.records.extend(records)
        if not is_complete:
            os.rename(joining, self.folder)
            return True
        shutil.rmtree(joining)
        with suppress(OSError):  # shards of other settings are there
            joining.parent.rmdir()
        return True

    def _is_there(self, number: int) -> bool:
        """Returns whether a process has left its part, and its images have as many bytes as then."""
        try:
            sizes = json.loads((self.folder / f'{number}.sizes.json').read_bytes())
        except FileNotFoundError:
            return False
        return sizes == [_size(path) for path in self.share(number)]


def _size(path: Path) -> int:
    """Returns the bytes of a file, 0 without it; processes may have copies of other times on their own disks."""
    return path.stat().st_size if path.is_file() else 0


def run_settings(given: TaskRun | Config | str | Path | None) -> str:
    """Returns what predictions depend on in a config; nothing for None, an exported file."""
    parts = {} if given is None else {key: as_run(given).cfg.get(key) for key in ('model', 'test_dataloader')}
    return json.dumps(parts, default=lambda value: type(value).__name__, sort_keys=True)
