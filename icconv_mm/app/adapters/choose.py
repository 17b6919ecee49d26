"""Chooses the adapter of a config: that of its library, or of a network for several tasks."""

from collections.abc import Mapping
from typing import Any

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.adapters.libraries import adapter_of, require_library
from icconv_mm.registry import LIBRARIES
from icconv_mm.tasks.libraries import libraries_of_tasks, scope_of


def scope_and_adapter(cfg: Mapping[str, Any], name: str = 'the config') -> tuple[str | None, TaskAdapter]:
    """Returns the library that a config is written for, and the adapter of its task.

    Args:
        cfg: A config with ``default_scope`` (or a scoped ``model.type``).
        name: Name of the config in an error.

    Returns:
        The import name of the library, and the adapter; for an unknown task, the defaults (``TaskAdapter``).

    Raises:
        MissingLibraryError: The library is not installed.
        InputError: ``model.tasks`` has a network of unknown type.
    """
    scope = scope_of(cfg)
    require_library(scope, name)
    if 'tasks' in (cfg.get('model') or {}):  # several tasks: the types in the config name their libraries
        libraries = libraries_of_tasks(cfg['model']['tasks'])
        from icconv_mm.app.adapters.multitask import Adapter

        return scope, Adapter(libraries)
    return scope, adapter_of(scope) if scope in LIBRARIES else TaskAdapter()
