"""Tiny ImageNet as arrays: its images, classes and boxes.

The first call decodes a folder as it is distributed and writes the pixels to its folder ``packed``, from which later
calls, and several processes at once, map them into memory. The images themselves may then be deleted.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from icconv_mm.app.commands import command_line
from icconv_mm.errors import InputError, naming
from icconv_mm.files import new_folder, require_file, require_folder, write_json
from icconv_mm_runtime.decoding import decode_image

PARTS = ('train', 'val')


class Part(NamedTuple):
    """The images of one part, with one object each.

    Attributes:
        images: [N, side, side, 3] of uint8, BGR.
        labels: [N], the class of each image.
        boxes: [N, 4], the object's left, top, right and bottom edge in pixels.
        classes: Class names.
    """

    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    classes: list[str]


class _Entry(NamedTuple):
    path: Path
    key: str  # of the class, such as n01443537
    box: tuple[float, ...]


def load(data: Path, part: str) -> Part:
    """Returns a part, ``'train'`` or ``'val'``, of a folder with Tiny ImageNet.

    Raises:
        MissingFileError: The folder, or a file that belongs there, does not exist.
        InputError: A line or an image cannot be read, or the folder cannot be written.
    """
    packed = data / 'packed'
    if not packed.is_dir():
        require_folder(data, 'DATA')
        _pack(data, packed)
    with naming(str(packed), OSError, ValueError):
        classes = json.loads((packed / 'classes.json').read_bytes())
        images = np.load(packed / f'{part}_images.npy', mmap_mode='r')
        return Part(images, *(np.load(packed / f'{part}_{name}.npy') for name in ('labels', 'boxes')), classes)


def _pack(data: Path, packed: Path) -> None:
    entries = {'train': list(_training_entries(data)), 'val': list(_validation_entries(data))}
    keys = sorted({entry.key for entry in entries['train']})
    with new_folder(packed, 'DATA') as folder:
        for part in PARTS:
            labels = [keys.index(entry.key) if entry.key in keys else -1 for entry in entries[part]]
            if -1 in labels:
                unknown = entries[part][labels.index(-1)]
                raise InputError(f'{unknown.path}: no training image has its class {unknown.key}')
            np.save(folder / f'{part}_labels.npy', np.array(labels))
            np.save(folder / f'{part}_boxes.npy', np.array([entry.box for entry in entries[part]], np.float32))
            _write_pixels(folder / f'{part}_images.npy', [entry.path for entry in entries[part]], part)
        names = _names(data / 'words.txt')
        write_json(folder / 'classes.json', [names.get(key, key) for key in keys])


def _training_entries(data: Path) -> Iterator[_Entry]:
    folders = sorted(path for path in (data / 'train').glob('*') if path.is_dir())
    if not folders:
        raise InputError(f'{data}: expected a folder for each class in train')
    for folder in folders:
        for name, *box in _lines(folder / f'{folder.name}_boxes.txt', 5):
            yield _Entry(folder / 'images' / name, folder.name, _edges(box))


def _validation_entries(data: Path) -> Iterator[_Entry]:
    for name, key, *box in _lines(data / 'val' / 'val_annotations.txt', 6):
        yield _Entry(data / 'val' / 'images' / name, key, _edges(box))


def _lines(path: Path, count: int) -> Iterator[list[str]]:
    """Yields the fields of each line: the name of an image, perhaps its class, and the four numbers of a box."""
    require_file(path, 'DATA')
    for number, line in enumerate(path.read_text().splitlines(), 1):
        fields = line.split('\t')
        if len(fields) != count or not all(field.isdecimal() for field in fields[-4:]):
            raise InputError(f'{path}:{number}: expected {count} fields that end with a box, got {line!r}')
        yield fields


def _edges(box: list[str]) -> tuple[float, ...]:
    left, top, right, bottom = map(int, box)  # the last pixels belong to the object
    return left, top, right + 1, bottom + 1


def _write_pixels(path: Path, images: list[Path], part: str) -> None:
    pixels = None
    for number, image in enumerate(command_line.progress(images, f'decoding {part}')):
        require_file(image, 'DATA')
        with naming(str(image), OSError, ValueError):
            decoded = decode_image(image.read_bytes())
        if pixels is None:
            shape = (len(images), *decoded.shape)
            pixels = np.lib.format.open_memmap(path, 'w+', np.uint8, shape)
        if decoded.shape != pixels.shape[1:]:
            height, width = pixels.shape[1:3]
            raise InputError(f'{image}: expected {width}x{height} pixels, as the first image has')
        pixels[number] = decoded
    if pixels is None:
        raise InputError(f'{path.parent.parent}: no images of {part} are listed')


def _names(path: Path) -> dict[str, str]:
    """Returns the first name of each class by its key, as WordNet lists them; nothing without the file."""
    if not path.is_file():
        return {}
    lines = (line.partition('\t') for line in path.read_text().splitlines())
    return {key: words.partition(',')[0] for key, _, words in lines}
