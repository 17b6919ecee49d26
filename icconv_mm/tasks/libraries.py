"""Finds the task library of a config, a class or a registered type, and the adapter of a library."""

from collections.abc import Mapping
from typing import Any

from mmengine.registry import MODELS, Registry

from icconv_mm import versions
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.registry import LIBRARIES, SCOPE, import_task

NO_LIBRARY = (None, 'mmengine', SCOPE)  # scopes of configs whose types name their libraries


def scope_of(cfg: Mapping[str, Any]) -> str | None:
    """Returns the task library of a config: its ``default_scope``, else the scope or the class of its model's type."""
    scope = cfg.get('default_scope')
    if scope in NO_LIBRARY:
        kind = (cfg.get('model') or {}).get('type')
        if isinstance(kind, type):  # of a config in pure Python
            return library_of(kind) or scope
        return kind.split('.')[0] if isinstance(kind, str) and '.' in kind else scope
    return scope


def library_of(cls: type) -> str | None:
    """Returns the library of a class, or of its nearest base that belongs to one: ``'mmdet'``, ``'mmpose'``, ..."""
    packages = (base.__module__.split('.')[0] for base in getattr(cls, '__mro__', ()))
    return next((package for package in packages if package in LIBRARIES), None)


def libraries_of_tasks(tasks: Any) -> dict[str, str | None]:
    """Returns the library of each task of ``model.tasks``, None of no known one; raises as :func:`registered_class`."""
    configs = tasks if isinstance(tasks, Mapping) else {}  # the model refuses any other type
    return {
        name: library_of(registered_class(MODELS, task.get('type'), f'model.tasks.{name}.type'))
        for name, task in configs.items()
        if isinstance(task, Mapping)
    }


def registered_class(registry: Registry, kind: Any, where: str) -> type:
    """Returns the class named by a ``type`` of a config.

    A type of this package may be in a task's folder, which is imported with its library: if it is not found, the
    installed libraries are imported.

    ``kind`` is a scoped name or a class, ``where`` the name of the config in an error.

    Raises:
        InputError: There is no such class; MissingLibraryError if its library is not installed.
    """
    if not isinstance(kind, str):
        if kind is None:
            raise InputError(f"{where}: no 'type'")
        return kind
    scope = kind.split('.')[0]
    if scope in LIBRARIES and not versions.is_installed(scope):
        raise MissingLibraryError(f'{where}: {kind} needs {scope}, which is not installed')
    if (cls := registry.get(kind)) is None and scope == SCOPE:
        for library in filter(versions.is_installed, LIBRARIES):
            import_task(library)
        cls = registry.get(kind)
    if cls is None:
        hint = '' if '.' in kind else f'; name its library, as in mmdet.{kind}'
        missing = [library for library in LIBRARIES if not versions.is_installed(library)]
        if scope == SCOPE and missing:
            hint = f'; types of tasks whose library is not installed do not exist: {", ".join(missing)}'
        raise InputError(f'{where}: no registered {kind!r}{hint}')
    return cls
