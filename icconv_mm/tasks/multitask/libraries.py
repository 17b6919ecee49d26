"""Which task library a type of a config belongs to."""

from typing import Any

from mmengine.registry import Registry

from icconv_mm import versions
from icconv_mm.errors import InputError
from icconv_mm.registry import SCOPE


def library_of(cls: type) -> str | None:
    """The library of a class, or of the nearest of its bases that belongs to one: ``'mmdet'``, ``'mmpose'``, ..."""
    packages = (base.__module__.split('.')[0] for base in getattr(cls, '__mro__', ()))
    return next((package for package in packages if package in versions.TASKS), None)


def find(registry: Registry, kind: Any, where: str) -> type:
    """The class that a ``type`` of a config names.

    A type of this package may live in the folder of a task, which is imported with its library: where it is not found,
    the installed libraries are imported.

    Args:
        registry: Registry where to look.
        kind: The type: a scoped name or a class.
        where: Name of the config in an error.

    Raises:
        InputError: There is none, or its library is not installed.
    """
    if not isinstance(kind, str):
        if kind is None:
            raise InputError(f"{where}: no 'type'")
        return kind
    scope = kind.split('.')[0]
    if scope in versions.TASKS and not versions.is_installed(scope):
        raise InputError(f'{where}: {kind} needs {scope}, which is not installed')
    if (found := registry.get(kind)) is None and scope == SCOPE:
        for library in filter(versions.is_installed, versions.TASKS):
            versions.import_task(library)
        found = registry.get(kind)
    if found is None:
        hint = '' if '.' in kind else f'; name its library, as in mmdet.{kind}'
        raise InputError(f'{where}: no registered {kind!r}{hint}')
    return found
