"""Which task a config is: the adapter of its library, or of a network for several tasks."""

from collections.abc import Mapping
from typing import Any

from icconv_mm.registry import LIBRARIES
from icconv_mm.tasks.adapter import TaskAdapter
from icconv_mm.tasks.libraries import adapter_of, require_library, scope_of


def scope_and_adapter(cfg: Mapping[str, Any], name: str = 'the config') -> tuple[str | None, TaskAdapter]:
    """The library that a config is written for, and the adapter of its task.

    Args:
        cfg: A config with ``default_scope`` (or a scoped ``model.type``).
        name: Name of the config in an error.

    Returns:
        The import name of the library, and the adapter; of no task known here, the defaults (``TaskAdapter``).

    Raises:
        MissingLibraryError: The library is not installed.
        InputError: ``model.tasks`` has a network of no known type.
    """
    scope = scope_of(cfg)
    require_library(scope, name)
    if 'tasks' in (cfg.get('model') or {}):  # several: the types in the config say of which libraries
        from icconv_mm.tasks.multitask.adapter import Adapter

        return scope, Adapter(cfg)
    return scope, adapter_of(scope) if scope in LIBRARIES else TaskAdapter()
