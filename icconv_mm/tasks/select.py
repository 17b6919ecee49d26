"""The task of a config: that of one library, or one network for several."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icconv_mm.errors import InputError
from icconv_mm.tasks.libraries import adapter_of, require_library, scope_of
from icconv_mm.utils import task_folders

if TYPE_CHECKING:
    from icconv_mm.tasks.base import TaskAdapter


class UnknownTaskError(InputError):
    """A config that belongs to no task known here."""


def get_task(cfg: Mapping[str, Any], name: str = 'the config') -> 'TaskAdapter':
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
        from icconv_mm.tasks.multitask.adapter import Adapter  # it loads mmcv

        return Adapter(cfg)
    if (scope := scope_of(cfg)) not in task_folders.TASKS:
        raise UnknownTaskError(f'{name}: default_scope = {scope!r}, expected one of {", ".join(task_folders.TASKS)}')
    return adapter_of(scope)
