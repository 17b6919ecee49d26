"""Reading the pickles of Detectron (Caffe2): numpy arrays by name, and nothing else.

It is not unpickled, because a pickle may name any importable function to be called: arrays are made from their bytes
(:mod:`icconv_mm.checkpoints.reader.plain_pickle`), and any other name is refused.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from icconv_mm.checkpoints.reader.plain_objects import NUMPY
from icconv_mm.checkpoints.reader.plain_pickle import Name, read_plain
from icconv_mm.checkpoints.safe import CheckpointError, opened


def load_detectron(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the blobs of a Detectron ``.pkl`` file; nothing in it can run code.

    Args:
        path: A local file, a dict of arrays or one under the key ``blobs``, pickled by Python 2 or 3.

    Returns:
        Tensors by the name of the blob. Entries that are no arrays (a configuration beside the blobs) are left out.

    Raises:
        MissingFileError: There is no such file.
        UnsafeCheckpointError: The file names an object beyond numpy arrays.
        CheckpointError: The file is truncated, or no such pickle.
    """
    path = Path(path).expanduser()
    with opened(path, 'a pickle', 'plain data and numpy arrays') as file:
        content = read_plain(file, NUMPY, {'numpy.ndarray': Name('numpy', 'ndarray')})
    return _tensors(path, content)


def _tensors(path: Path, content: Any) -> dict[str, Tensor]:
    blobs = content.get('blobs', content) if isinstance(content, Mapping) else content
    if not isinstance(blobs, Mapping):
        raise CheckpointError(f'{path}: expected a dict of arrays, found {type(blobs).__name__}')
    tensors = {}
    for name, value in blobs.items():
        if isinstance(value, np.ndarray):
            try:
                tensors[str(name)] = torch.from_numpy(np.ascontiguousarray(value))
            except TypeError as error:  # of numbers that torch has no dtype for
                raise CheckpointError(f'{path}: the array of {name!r} is damaged: {error}') from None
    if not tensors:
        raise CheckpointError(f'{path}: no arrays found; it holds {", ".join(map(repr, blobs)) or "nothing"}')
    return tensors
