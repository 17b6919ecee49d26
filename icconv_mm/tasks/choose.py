"""Which task a config is: the adapter of its library, or of a network for several tasks."""

from collections.abc import Mapping
from typing import Any

from icconv_mm.errors import InputError
from icconv_mm.registry import LIBRARIES
from icconv_mm.tasks.adapter import TaskAdapter
from icconv_mm.tasks.libraries import adapter_of, require_library, scope_of


class UnknownTaskError(InputError):
    """A config that belongs to no task known here."""


def task_of(cfg: Mapping[str, Any], name: str = 'the config') -> TaskAdapter:
    """The adapter of the task that a config describes.

    Args:
        cfg: A config with ``default_scope`` (or a scoped ``model.type``).
        name: Name of the config in an error.

    Raises:
        MissingLibraryError: The library is not installed.
        UnknownTaskError: The config belongs to no task known here.
    """
    require_library(cfg, name)
    if 'tasks' in (cfg.get('model') or {}):  # several: the types in the config say of which libraries
        from icconv_mm.tasks.multitask.adapter import Adapter

        return Adapter(cfg)
    if (scope := scope_of(cfg)) not in LIBRARIES:
        raise UnknownTaskError(f'{name}: default_scope = {scope!r}, expected one of {", ".join(LIBRARIES)}')
    return adapter_of(scope)


def adapter_for(cfg: Mapping[str, Any]) -> TaskAdapter:
    """As :func:`task_of`, but with the defaults for a network and data that are of no task known here."""
    try:
        return task_of(cfg)
    except UnknownTaskError:
        return TaskAdapter()
