"""Shares images out among processes, and joins what they have predicted in one file."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from icconv_mm.errors import ArgumentError
from icconv_mm.files import write_json
from icconv_mm.runner.coco_results import CocoResults

_FOLDER = '.shards'  # in the folder of the results, until all are there


class Shards:
    """One of the processes that share images out; the last one that ends joins what all have predicted.

    Args:
        out: The folder of the results, which all processes reach.
        shard: The number of this process, from 1, and how many there are.
        checkpoint: The file of the network.
        settings: What else the results depend on. Those of former processes with other settings are not joined.

    Raises:
        ArgumentError: The number is not one of 1 to N.
    """

    def __init__(self, out: Path, shard: tuple[int, int], checkpoint: str, settings: Iterable[Any]) -> None:
        self.number, self.count = shard
        if not 1 <= self.number <= self.count:
            raise ArgumentError('shard', f'expected I/N, I from 1 to N, got {self.number}/{self.count}')
        whole = hashlib.sha256(json.dumps([*map(str, settings), self.count]).encode())
        for path in (Path(checkpoint), Path(checkpoint).with_suffix('.bin')):  # the weights of OpenVINO's format
            whole.update(path.read_bytes() if path.is_file() else b'')
        self.folder = out / _FOLDER / whole.hexdigest()[:12]

    def share(self, paths: Sequence[Path]) -> Sequence[Path]:
        """Returns the images of this process, which are one after the other."""
        return paths[len(paths) * (self.number - 1) // self.count : len(paths) * self.number // self.count]

    def join(self, images: dict[Path, dict], parts: Sequence[CocoResults], is_complete: bool) -> bool:
        """Leaves the results of this process for the last one; returns whether it is the last, and has those of all.

        The parts stay where they are if images of one have failed: its process can run again.

        Args:
            images: Information about each image, to which that of the others is added.
            parts: The results of each task, to which those of the others are added, in the order of the images.
            is_complete: Whether no image of this process has failed.
        """
        about = {str(path): own for path, own in images.items()}
        own = {'images': about, 'parts': [each.records for each in parts], 'is_complete': is_complete}
        write_json(self.folder / f'{self.number}.json', own)
        names = [f'{number}.json' for number in range(1, self.count + 1)]
        there = [name for name in names if (self.folder / name).is_file()]
        if len(there) < self.count:
            print_log(f'{len(there)} of {self.count} parts are there; the last one writes the files', 'current')
            return False
        joining = self.folder.with_suffix('.joining')
        try:
            os.rename(self.folder, joining)  # one process alone succeeds
        except FileNotFoundError:
            return False
        images.clear()
        for part in parts:
            part.records.clear()
        for name in names:
            content = json.loads((joining / name).read_bytes())
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
