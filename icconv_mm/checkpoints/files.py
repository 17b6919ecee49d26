"""Checkpoint files: read safely, convert, write atomically."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch

from icconv_mm._version import __version__
from icconv_mm.checkpoints import safe
from icconv_mm.checkpoints.conversion import Conversion, run_conversion
from icconv_mm.checkpoints.metadata import class_names
from icconv_mm.checkpoints.sources.detectron_pickle import load_detectron
from icconv_mm.errors import InputError, naming
from icconv_mm.utils.files import whole_file


def convert_file(path: str | Path, out: str | Path, source: str, **options) -> Conversion:
    """Convert the checkpoint ``path`` and write ``out``; nothing is written if the conversion fails.

    The written file holds ``state_dict`` and ``meta``. ``meta['converted_from']`` records the source, the layout found,
    and the name and SHA-256 of the input; class names that the input carries (``meta['CLASSES']``) become
    ``meta['dataset_meta']``, where today's inferencers look for them.

    Args:
        path: The released file; it is read without running code from it.
        out: The file to write; an existing one is replaced.
        source, options: The arguments of :func:`icconv_mm.checkpoints.convert`.

    Raises:
        MissingFileError, InputError: As :func:`read_checkpoint` and :func:`icconv_mm.checkpoints.convert`.
    """
    path, out = Path(path), Path(out)
    checkpoint = read_checkpoint(path)
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, Mapping) else {}
    if 'converted_from' in meta:
        origin = meta['converted_from'] if isinstance(meta['converted_from'], Mapping) else {}
        file, name, digest = (origin.get(key, 'unknown') for key in ('file', 'source', 'sha256'))
        raise InputError(f'{path}: converted already, from {file} (source {name}, sha256 {digest}); it loads as it is')
    with naming(str(path)):
        classes = class_names(meta.get('CLASSES'), 'meta.CLASSES')
        conversion = run_conversion(checkpoint, source, **options)
    new_meta = {
        'converted_from': dict(source=source, layout=conversion.layout, file=path.name, sha256=sha256(path)),
        'icconv_mm_version': __version__,
    }
    if classes:
        new_meta['dataset_meta'] = {'classes': classes}
    write_checkpoint({'state_dict': conversion.state_dict, 'meta': new_meta}, out)
    return conversion


def read_checkpoint(path: str | Path) -> Mapping:
    """Read a checkpoint without running code from it; a ``.pkl`` file as one of Detectron.

    Raises:
        MissingFileError: There is no such file.
        InputError: As :func:`icconv_mm.checkpoints.safe.load` and :func:`icconv_mm.checkpoints.load_detectron`, or the
            file holds something else than a dict.
    """
    if Path(path).suffix == '.pkl':
        return {'state_dict': load_detectron(path)}
    checkpoint = safe.load(path)
    if not isinstance(checkpoint, Mapping):
        raise InputError(f'{path}: expected a dict of weights, found {type(checkpoint).__name__}')
    return checkpoint


def write_checkpoint(checkpoint: dict, path: str | Path) -> None:
    """Write ``checkpoint`` to ``path`` in one step: readers find the old file or the whole new one."""
    with whole_file(Path(path)) as file:
        torch.save(checkpoint, file)


def sha256(path: str | Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
