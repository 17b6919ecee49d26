"""Opens, decodes and parses annotation files: each must be a regular file of a size within the limits."""

import gc
import json
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from xml.etree.ElementTree import Element, ParseError, fromstring

from icconv_mm.datasets import limits
from icconv_mm.errors import InputError, UserError, message_of, short


class DatasetError(InputError):
    """A dataset cannot be used: a path is missing, a file has another format, or no image is left."""


class _FileAndText(NamedTuple):
    file: str
    text: str


class Problem(_FileAndText):
    """What is wrong with a file of a dataset, or at a location in it: a pair of both.

    Attributes:
        file: The file, and the location in it.
        text: The defect, and what comes of it.
        is_left_out: Whether something of the dataset is not used for it.
    """

    def __new__(cls, file: str, text: str, is_left_out: bool = False) -> 'Problem':
        problem = super().__new__(cls, file, text)
        problem.is_left_out = is_left_out
        return problem

    def __str__(self) -> str:
        return f'{self.file}: {self.text}'


class Problems(list[Problem]):
    """Problems in the order in which they were found."""

    def warn(self, file: str | Path, what: str, is_left_out: bool = False) -> None:
        """Records a problem; ``what`` may begin with the file."""
        text = what.removeprefix(f'{file}: ') + ': left out' * is_left_out
        self.append(Problem(str(file), text, is_left_out))

    def warn_once(self, file: str | Path, what: str, is_left_out: bool = False) -> None:
        """Records a problem, unless it is the same as an earlier one."""
        self.warn(file, what, is_left_out)
        if self[-1] in self[:-1]:
            self.pop()


@contextmanager
def no_garbage_search() -> Iterator[None]:
    """Disables garbage collection, which takes most of the time while millions of lasting objects are created."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            if not gc.get_freeze_count():  # moves the objects to the oldest generation: nothing searches them soon
                gc.freeze()
                gc.unfreeze()
            gc.enable()


@contextmanager
def open_regular_file(path: str | Path, most: int) -> Iterator[BinaryIO]:
    """Opens a regular file, up to a maximum size, for reading.

    Args:
        path: The file.
        most: Largest size in bytes, one of :mod:`icconv_mm.datasets.limits`.

    Raises:
        DatasetError: The file cannot be read, is no regular file, or is larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0))  # a pipe would block until written
        with open(descriptor, 'rb') as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise DatasetError(f'{path}: is no regular file')
            if state.st_size > most:
                raise DatasetError(f'{path}: has {state.st_size} bytes, of which at most {most} are read')
            yield file
    except DatasetError:
        raise
    except (OSError, ValueError) as error:
        raise DatasetError(f'{path}: {fault_of(error)}') from None


def read_bytes(path: str | Path, most: int) -> bytes:
    """Returns the content of a regular file; arguments and errors as for :func:`open_regular_file`."""
    with open_regular_file(path, most) as file:
        return file.read()


def head(path: Path, count: int = 4096) -> str:
    """Returns the first characters of a file of any size; '' if it cannot be read."""
    try:
        with open_regular_file(path, sys.maxsize) as file:
            return decode_text(file.read(count))
    except DatasetError:
        return ''


def decode_text(content: bytes) -> str:
    """Decodes UTF-8, UTF-16 or UTF-32; invalid bytes become question marks."""
    return content.decode(json.detect_encoding(content), errors='replace')


def read_text(path: Path) -> str:
    """Returns the text of a file in UTF-8, UTF-16 or UTF-32.

    Raises:
        DatasetError: As for :func:`open_regular_file`.
    """
    return decode_text(read_bytes(path, limits.TEXT_BYTES))


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file in UTF-8, UTF-16 or UTF-32.

    Raises:
        DatasetError: The file is not JSON, or as for :func:`open_regular_file`.
    """
    content = read_bytes(path, limits.JSON_BYTES)
    try:
        with no_garbage_search():
            return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f'{path}: not JSON ({error})') from None


def read_xml(path: Path) -> Element:
    """Returns the root element of an XML file.

    Raises:
        DatasetError: The file is not XML, or as for :func:`open_regular_file`.
    """
    content = read_bytes(path, limits.XML_BYTES)
    try:
        return fromstring(content)
    except (ParseError, ValueError, LookupError) as error:  # LookupError: unknown encoding
        raise DatasetError(f'{path}: not XML ({error})') from None


def read_yaml(path: Path) -> dict:
    """Returns the mapping in a YAML file; empty if it holds none.

    Raises:
        DatasetError: The file is not YAML, its aliases expand to too many values, or as for :func:`open_regular_file`.
    """
    import yaml

    def whole_number(loader: yaml.SafeLoader, node: yaml.Node) -> int:
        if len(node.value) > limits.NUMBER_LETTERS:  # many larger ones of one hash slow mappings
            raise ValueError(f'{short(node.value, 40)} has more than {limits.NUMBER_LETTERS} digits')
        return loader.construct_yaml_int(node)

    text = decode_text(read_bytes(path, limits.YAML_BYTES))
    try:
        loader = yaml.SafeLoader(text)
        loader.yaml_constructors = {**loader.yaml_constructors, 'tag:yaml.org,2002:int': whole_number}
        node = loader.get_single_node()
        if node is None:
            return {}
        if (count := _expanded(node, {})) > limits.YAML_NODES:
            raise DatasetError(f'{path}: its aliases stand for {short(count)} values, at most {limits.YAML_NODES}')
        content = loader.construct_document(node)
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f'{path}: not YAML ({" ".join(str(error).split())})') from None
    return content if isinstance(content, dict) else {}


def _expanded(node: Any, ids: dict[int, int]) -> int:
    """Returns the number of values of a YAML node with aliases expanded; above the limit if it contains itself."""
    if id(node) not in ids:
        ids[id(node)] = limits.YAML_NODES + 1  # until it is counted: detects a cycle
        parts = node.value if not isinstance(node.value, str) else ()
        parts = (number for part in parts for number in (part if isinstance(part, tuple) else (part,)))
        ids[id(node)] = 1 + sum(_expanded(part, ids) for part in parts)
    return ids[id(node)]


def fault_of(error: Exception) -> str:
    """Returns the message for an exception raised while reading an annotation file or a part of it."""
    if isinstance(error, UserError):
        return str(error)
    what = error.strerror if isinstance(error, OSError) else None
    return f'cannot be read ({what or f"{type(error).__name__}: {message_of(error)}"})'


def as_number(value: Any, field: str) -> float:
    """Converts a number or its text to a finite float.

    Raises:
        DatasetError: The value is no finite number; the message names ``field``.
    """
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else float('nan')
    except (ValueError, OverflowError):
        number = float('nan')
    if not abs(number) < 1e9:
        raise DatasetError(f'{field} is {short(value, 40)}, expected a number')
    return number


def as_integer(value: Any, field: str) -> int:
    """Converts a whole number or its text to an int.

    Raises:
        DatasetError: The value is no whole number; the message names ``field``.
    """
    number = as_number(value, field)
    if number != int(number):
        raise DatasetError(f'{field} is {short(value, 40)}, expected a whole number')
    return int(number)


def mentions(text: str, *keys: str) -> bool:
    """Returns whether a JSON or YAML text contains one of the keys."""
    return re.search(rf'\b(?:{"|".join(keys)})["\']?\s*:', text) is not None
