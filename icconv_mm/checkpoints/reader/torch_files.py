"""The two formats that ``torch.save`` writes, read without torch's own reader.

* Since torch 1.6 a zip archive: ``NAME/data.pkl``, a pickle in which a storage is a persistent id, and
  ``NAME/data/KEY``, the bytes of each storage, not compressed.
* Before: a magic number, a version and facts about the machine, each a pickle; the pickle; a list of the keys of the
  storages; then for each its length and its bytes.

A TorchScript archive is a zip archive that holds code. It is refused, not passed on to anything.
"""

import io
import os
import re
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

import torch

from icconv_mm.checkpoints.reader.plain_objects import CALLS, STORAGES, Storage, constants, item_size
from icconv_mm.checkpoints.reader.plain_pickle import Name, PickleError, Refusal, read_plain

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_LOCAL_HEADER = b'PK\x03\x04'
_MAX_PICKLE = 1 << 30
_DEVICE = re.compile(r'cpu|(?:cuda|xpu|npu|mps|hpu|mlu|musa|privateuseone)(?::\d{1,3})?')

# (storage on the CPU, where the file says that it was) -> the storage where it is wanted
Place = Callable[[torch.UntypedStorage, str], torch.UntypedStorage]


def read_torch_file(file: BinaryIO, map_location: Any = None) -> Any:
    """Read what ``torch.save`` wrote.

    Args:
        file: Open and seekable.
        map_location: Device of the tensors, as for ``torch.load``.

    Raises:
        ForeignNames, Refusal: It holds something that may not be read.
        ValueError, zipfile.BadZipFile, ...: It is damaged.
    """
    place = _place(map_location)
    size = os.fstat(file.fileno()).st_size
    start = file.read(4)
    file.seek(0)
    return (_Archive if start == _LOCAL_HEADER else _Legacy)(file, size, place).read()


class _Archive:
    """A zip archive."""

    def __init__(self, file: BinaryIO, size: int, place: Place) -> None:
        self.file, self.size, self.place = file, size, place
        entries = zipfile.ZipFile(file).infolist()
        self.entries = {entry.filename: entry for entry in entries}
        (found, *more) = [name for name in self.entries if name.count('/') == 1 and name.endswith('/data.pkl')] or [
            None
        ]
        if found is None or more or len(self.entries) != len(entries):
            raise ValueError('a zip archive, but not one of torch')
        self.prefix = found.removesuffix('data.pkl')
        if f'{self.prefix}constants.pkl' in self.entries or f'{self.prefix}code/' in ''.join(self.entries):
            raise Refusal('code: it is a TorchScript archive')
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError('a zip archive whose files lie on top of each other')
        self.storages: dict[str, torch.UntypedStorage] = {}

    def read(self) -> Any:
        if f'{self.prefix}byteorder' in self.entries and self.bytes_of('byteorder', 16) != b'little':
            raise ValueError('it was written on a machine of another byte order')
        return read_plain(io.BytesIO(self.bytes_of('data.pkl', _MAX_PICKLE)), CALLS, constants(), self.storage)

    def bytes_of(self, name: str, most: int) -> bytes:
        size = self.find(name)
        if size > most:
            raise ValueError(f'{name} has {size} bytes')
        return self.file.read(size)

    def find(self, name: str) -> int:
        """Go to the begin of a file of the archive; returns how long it is."""
        entry = self.entries.get(f'{self.prefix}{name}')
        if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise ValueError(f'no plain {name} in the archive')
        self.file.seek(entry.header_offset)
        header = self.file.read(30)
        if header[:4] != _LOCAL_HEADER or len(header) != 30:
            raise ValueError(f'{name} is not where the archive says')
        begin = entry.header_offset + 30 + int.from_bytes(header[26:28], 'little')
        begin += int.from_bytes(header[28:30], 'little')
        if begin + entry.file_size > self.size:
            raise ValueError(f'{name} is cut off')
        self.file.seek(begin)
        return entry.file_size

    def storage(self, identity: Any) -> Storage:
        dtype, key, location, count = _described(identity)
        if key not in self.storages:
            memory = torch.UntypedStorage(self.find(f'data/{key}'))
            _fill(memory, self.file, dtype)
            self.storages[key] = self.place(memory, location)
        if count * item_size(dtype) > self.storages[key].nbytes():
            raise ValueError(f'storage {key} has {self.storages[key].nbytes()} bytes, expected {count} {dtype}')
        return Storage(self.storages[key], dtype)


class _Legacy:
    """The format before torch 1.6, whose storages follow what refers to them."""

    def __init__(self, file: BinaryIO, size: int, place: Place) -> None:
        self.file, self.size, self.place = file, size, place
        self.storages: dict[str, tuple[torch.UntypedStorage, torch.dtype, str]] = {}
        self.used = 0

    def read(self) -> Any:
        file = self.file
        if read_plain(file, {}, {}) != _MAGIC or read_plain(file, {}, {}) != _VERSION:
            raise ValueError('no file of torch.save')
        machine = read_plain(file, {}, {})
        if not isinstance(machine, dict) or machine.get('little_endian') is not True:
            raise ValueError('it was written on a machine of another byte order')
        begin = file.tell()
        content = read_plain(file, CALLS, constants(), self.storage)
        keys = read_plain(file, {}, {})
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self.storages):
            raise ValueError('its storages are not those that it refers to')
        for key in keys:
            memory, dtype, _ = self.storages[key]
            if int.from_bytes(file.read(8), 'little') * item_size(dtype) != memory.nbytes():
                raise ValueError(f'storage {key} is not of {memory.nbytes()} bytes')
            _fill(memory, file, dtype)
        placed = {key: (self.place(memory, at), dtype, at) for key, (memory, dtype, at) in self.storages.items()}
        if all(placed[key][0] is memory for key, (memory, _, _) in self.storages.items()):
            return content
        self.storages = placed  # the tensors were made of others
        file.seek(begin)
        return read_plain(file, CALLS, constants(), self.storage)

    def storage(self, identity: Any) -> Storage:
        *described, view = identity if type(identity) is tuple and len(identity) == 6 else (*identity, None)
        dtype, key, location, count = _described(tuple(described))
        if view is not None:
            raise ValueError('a storage that is a part of another one')  # written before torch 0.4
        if key not in self.storages:
            self.used += count * item_size(dtype)
            if self.used > self.size:
                raise ValueError('its storages are longer than the file')
            self.storages[key] = torch.UntypedStorage(count * item_size(dtype)), dtype, location
        memory, own, _ = self.storages[key]
        if own != dtype or memory.nbytes() != count * item_size(dtype):
            raise ValueError(f'storage {key} is of two kinds')
        return Storage(memory, dtype)


def _described(identity: Any) -> tuple[torch.dtype, str, str, int]:
    """The persistent id of a storage: ``('storage', type, key, location, number of items)``."""
    if type(identity) is not tuple or len(identity) != 5 or identity[0] != 'storage':
        raise PickleError('a persistent id that is no storage')
    _, kind, key, location, count = identity
    if type(kind) is not Name or kind.text not in STORAGES:
        raise PickleError('a storage of no known type')
    if type(key) is not str or type(location) is not str or type(count) is not int or not 0 <= count < 2**48:
        raise PickleError('a storage without a key or a size')
    return STORAGES[kind.text], key, location, count


def _fill(memory: torch.UntypedStorage, file: BinaryIO, dtype: torch.dtype) -> None:
    """Read the bytes of a storage; those of bools become 0 or 1, because kernels rely on that."""
    if memory.nbytes() == 0:
        return
    items = torch.empty(0, dtype=torch.uint8).set_(memory)
    if file.readinto(items.numpy().data) != memory.nbytes():
        raise EOFError('it ends within a storage')
    if dtype == torch.bool:
        items.clamp_(max=1)


def _place(map_location: Any) -> Place:
    """What ``map_location`` of ``torch.load`` does with a storage."""

    def place(memory: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
        if map_location is None:
            return _moved(memory, _device(location))
        if isinstance(map_location, dict):
            return _moved(memory, map_location.get(location) or _device(location))
        if isinstance(map_location, (str, torch.device)):
            return _moved(memory, map_location)
        placed = map_location(memory, location)
        if placed is None:
            return _moved(memory, _device(location))
        return getattr(placed, '_untyped_storage', placed)

    return place


def _device(location: str) -> str:
    """What the file says about where a storage was, if it is a device."""
    if not _DEVICE.fullmatch(location):
        raise ValueError(f'a storage on {location!r:.40}, which is no device')
    return location


def _moved(memory: torch.UntypedStorage, device: str | torch.device) -> torch.UntypedStorage:
    if str(device) == 'cpu':
        return memory
    return torch.empty(0, dtype=torch.uint8).set_(memory).to(device).untyped_storage()
