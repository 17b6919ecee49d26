"""Finding and loading the library of compiled operators, and looking up its kernels."""

import importlib.machinery
import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import torch

from icconv_mm.errors import message_of
from icconv_mm.torch_private import has_kernel

REBUILD = 'build it with `pip install --no-build-isolation -e .` (needs a C++ compiler)'


@cache
def missing_library() -> str | None:
    """Loads the compiled operators once; returns None, or a message why they are missing and what to do."""
    package, _, path = _find_library()
    if path is None:
        others = ', '.join(sorted(file.name for file in package.glob('_C_torch*')))
        hint = f'; found only {others}, built for another torch or Python' if others else ''
        return f'icconv_mm has no compiled operators for torch {torch.__version__}{hint}; {REBUILD}'
    try:
        torch.ops.load_library(str(path))
    except (OSError, RuntimeError) as error:
        said = message_of(error).splitlines()[0]
        return f'{path.name} does not load with torch {torch.__version__} ({said}); re{REBUILD}'
    return None


def _find_library() -> tuple[Path, str, Path | None]:
    """Returns the package's folder, and the library's name and file; the name has the torch version of the build."""
    package = Path(__file__).resolve().parents[1]
    major, minor = torch.__version__.split('.')[:2]
    name = f'_C_torch{major}_{minor}'
    files = (package / f'{name}{suffix}' for suffix in importlib.machinery.EXTENSION_SUFFIXES)
    return package, name, next(filter(Path.is_file, files), None)


@cache
def library_module() -> ModuleType | None:
    """Returns the compiled library as a Python module; None without it."""
    if missing_library():
        return None
    _, name, path = _find_library()
    spec = importlib.util.spec_from_file_location(f'icconv_mm.{name}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def missing_kernel(operator: str, device: str) -> str | None:
    """Returns None if the compiled library has a kernel of ``operator`` for a device type, else a message why not."""
    if reason := missing_library():
        return reason
    if _is_registered(operator, device):
        return None
    return f'the compiled operators have no {device} kernel of {operator}; re{REBUILD}'


@cache  # called at every call of an operator
def _is_registered(operator: str, device: str) -> bool:
    # a library built from older sources lacks the schema
    is_registered = hasattr(torch.ops.icconv_mm, operator)
    return is_registered and has_kernel(f'icconv_mm::{operator}', device.upper())
