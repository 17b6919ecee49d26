"""Makes mmengine read checkpoints through :mod:`icconv_mm.checkpoints.reading`, which runs no code from them.

Uses mmengine's public ``CheckpointLoader.register_scheme``; it applies to every tool and inferencer of a process.
"""

import hashlib
import importlib.util
import os
import re
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import torch

from icconv_mm.checkpoints import reading, shipped
from icconv_mm.fetch import cached_name, fetch

_CHECKPOINTS_OF_MMENGINE = 'mmengine.runner.checkpoint'
_HASHED = ('https://download.pytorch.org/', 'https://download.openmmlab.com/')  # whose names end in a file's hash
_MOST_BYTES, _LIMIT = 1 << 36, 24 * 3600  # bytes and seconds of a download


def patch_with_runner() -> None:
    """Calls :func:`patch_checkpoint_loading` after the first import of mmengine's runner.

    Importing the runner here would take seconds, and the use of a layer does not need it.
    """
    if _CHECKPOINTS_OF_MMENGINE in sys.modules:
        patch_checkpoint_loading()
    elif not any(isinstance(finder, _InstallsWithRunner) for finder in sys.meta_path):
        sys.meta_path.insert(0, _InstallsWithRunner())


# Without it, a user who loads by mmengine before a module of this package is built would run a checkpoint's code, or
# every import would take 0.6 s longer for mmengine's runner.
class _InstallsWithRunner(MetaPathFinder):
    """Import hook that calls :func:`patch_checkpoint_loading` after the import of mmengine's checkpoint module."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if fullname != _CHECKPOINTS_OF_MMENGINE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (execute(module), patch_checkpoint_loading())
        return spec


def patch_checkpoint_loading() -> None:
    """Makes mmengine read files, URLs and this package's weights through :mod:`icconv_mm.checkpoints.reading`."""
    from mmengine.runner import checkpoint

    register = checkpoint.CheckpointLoader.register_scheme
    register(prefixes='', loader=load_from_local, force=True)
    register(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    register(prefixes=shipped.SCHEME, loader=load_from_package, force=True)
    checkpoint.load_from_http = load_from_http  # used for torchvision:// and open-mmlab://
    # The reader of onedl-mmengine for all other sources: what torch's safe reader refuses it reads as a plain pickle.
    if hasattr(checkpoint, '_safe_torch_load'):
        checkpoint._safe_torch_load = load_from_any


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """Reads a local file for ``CheckpointLoader``; mmengine prints the last word of this function's name."""
    return _without_code(reading.read(filename, map_location))


def load_from_package(filename: str, map_location: Any = None) -> dict[str, Any]:
    """Reads weights of :mod:`icconv_mm.checkpoints.shipped` for ``CheckpointLoader``."""
    return {'state_dict': reading.read(shipped.path_of(filename), map_location), 'meta': {}}


def load_from_http(filename: str, map_location: Any = None, **_: Any) -> Any:
    """Reads a URL for ``CheckpointLoader``: one rank per machine downloads into torch's hub folder, then all read."""
    from mmengine.dist import barrier, get_local_rank

    try:
        if get_local_rank() == 0:
            fetch_weights(filename)
    finally:
        barrier()
    return load_from_local(cached_weights(filename), map_location)


def fetch_weights(address: str, timeout: float = 30) -> Path:
    """Returns the file of weights of an address in torch's hub folder, downloaded if it is not there.

    It is kept only if it reads as a checkpoint, and has the hash in its name where torch or OpenMMLab publish it.

    Args:
        address: The URL.
        timeout: Seconds without a byte.

    Raises:
        FetchError: There is no whole answer. CheckpointError: It is no checkpoint.
    """
    path = cached_weights(address)
    if path.is_file() and not _hash_defect(path, address):
        return path
    bars = []

    def show(count: int, total: int | None) -> None:
        bars[:] = bars or [torch.hub.tqdm(total=total, disable=not os.isatty(2), unit='B', unit_scale=True)]
        bars[0].update(count)

    def check(part: Path) -> None:
        with open(part, 'rb') as file:
            reading.read_stream(file, address)
        if defect := _hash_defect(part, address):
            raise reading.CheckpointError(f'{address}: {defect}')

    return fetch(address, path, most=_MOST_BYTES, limit=_LIMIT, timeout=timeout, check=check, progress=show)


def _hash_defect(file: Path, address: str) -> str:
    """Returns how a file differs from the hash in the name of a publisher who writes one; else ''."""
    sha256 = _hash_of(address)
    actual = hashlib.sha256(file.read_bytes()).hexdigest() if sha256 else ''
    return '' if actual.startswith(sha256) else f'has the SHA-256 {actual}, not the one in its name'


def _hash_of(address: str) -> str:
    match = re.search(r'-([0-9a-f]{8,64})\.\w+$', address) if address.startswith(_HASHED) else None
    return match[1] if match else ''


def cached_weights(address: str) -> Path:
    """Returns where the weights of an address lie in torch's hub folder once they are fetched.

    torch's own name stays where the publisher writes the content's hash into it.
    """
    name = address.rpartition('/')[2] if _hash_of(address) else cached_name(address)
    return Path(torch.hub.get_dir(), 'checkpoints', name)


def load_from_any(file: Any, map_location: Any = None, weights_only: bool | None = None) -> Any:
    """Reads a local file, or an open one of a storage backend, in place of onedl-mmengine's ``_safe_torch_load``."""
    if isinstance(file, (str, os.PathLike)):
        return load_from_local(file, map_location)
    return _without_code(reading.read_stream(file, 'a checkpoint of a storage backend', map_location))


def _without_code(content: Any) -> Any:
    """Removes ``meta.config``, which mmengine no longer writes but runs as Python to resume."""
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content
