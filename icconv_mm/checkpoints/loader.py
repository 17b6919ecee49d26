"""mmengine reads checkpoints through :mod:`icconv_mm.checkpoints.reading`, which runs no code from them.

By its public ``CheckpointLoader.register_scheme``, in every tool and inferencer of a process.
"""

import importlib.util
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

from icconv_mm.checkpoints import reading

_CHECKPOINTS_OF_MMENGINE = 'mmengine.runner.checkpoint'


def patch_with_runner() -> None:
    """Call :func:`patch_checkpoint_loading` after the first import of mmengine's runner.

    Importing the runner here would take seconds that the use of a layer does not need.
    """
    if _CHECKPOINTS_OF_MMENGINE in sys.modules:
        patch_checkpoint_loading()
    elif not any(isinstance(finder, _InstallsWithRunner) for finder in sys.meta_path):
        sys.meta_path.insert(0, _InstallsWithRunner())


# Without it, who imports this package and loads by mmengine before a module of ours is built would run a checkpoint's
# code, or every import would take 0.6 s longer for mmengine's runner.
class _InstallsWithRunner(MetaPathFinder):
    """Calls :func:`patch_checkpoint_loading` after the import of mmengine's loading of checkpoints."""

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
    """Let mmengine read local files and URLs through :func:`~icconv_mm.checkpoints.reading.read`."""
    from mmengine.runner import checkpoint

    register = checkpoint.CheckpointLoader.register_scheme
    register(prefixes='', loader=load_from_local, force=True)
    register(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    checkpoint.load_from_http = load_from_http  # by which it fetches torchvision:// and open-mmlab://


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """The ``CheckpointLoader`` of local files (mmengine prints the last word of this function's name)."""
    return _without_code(reading.read(filename, map_location))


def load_from_http(filename: str, map_location: Any = None, **_: Any) -> Any:
    """The ``CheckpointLoader`` of URLs: one rank of each machine downloads into torch's hub folder, then all read."""
    from mmengine.dist import barrier, get_local_rank

    path = Path(torch.hub.get_dir(), 'checkpoints', Path(urlparse(filename).path).name)
    if get_local_rank() == 0 and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(filename, str(path), progress=os.isatty(2))
    barrier()
    return _without_code(reading.read(path, map_location))


def _without_code(content: Any) -> Any:
    """Leave out ``meta.config``, which mmengine no longer writes and, to resume, runs as Python."""
    if isinstance(content, dict) and isinstance(content.get('meta'), dict):
        content['meta'].pop('config', None)
    return content
