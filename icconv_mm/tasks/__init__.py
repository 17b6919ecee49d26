"""The task libraries: one folder each, and the only code that imports them.

The registry imports a folder once its library is imported, not before: each library costs seconds at start-up, and a
config needs only one. What the tools know about a task is its ``adapter.py``, a
:class:`~icconv_mm.tasks.base.TaskAdapter`.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icconv_mm import versions
from icconv_mm.errors import InputError, UserError

if TYPE_CHECKING:
    from icconv_mm.tasks.base import TaskAdapter


class UnknownTaskError(InputError):
    """A config that belongs to no task known here."""


class MissingLibraryError(UserError, ImportError):
    """A config names a task library that is not installed or not supported."""


def scope_of(cfg: Mapping[str, Any]) -> str | None:
    """The task library that a config is written for: its ``default_scope``, else the scope of its model's type."""
    scope = cfg.get('default_scope')
    if scope in (None, 'mmengine', 'icconv_mm'):
        kind = (cfg.get('model') or {}).get('type')
        return kind.split('.')[0] if isinstance(kind, str) and '.' in kind else scope
    return scope


def require_library(cfg: Mapping[str, Any], name: str = 'the config') -> None:
    """Raise MissingLibraryError unless the library that ``cfg`` is written for can be imported.

    Args:
        cfg: A config.
        name: What to call it in the message, such as its file name.
    """
    scope = scope_of(cfg)
    known = versions.SUPPORTED.get(scope)
    if scope in (None, 'mmengine', 'icconv_mm'):
        return
    if not versions.is_installed(scope):
        hint = f': pip install "{known[0][0]}>={known[1]},<{known[2]}"' if known else ''
        raise MissingLibraryError(f"{name} needs {scope} (default_scope = '{scope}'), which is not installed{hint}")
    if known:
        try:
            versions.check((scope,))
        except ImportError as error:
            raise MissingLibraryError(f'{name}: {error}') from None


def get_task(cfg: Mapping[str, Any], name: str = 'the config') -> 'TaskAdapter':
    """The adapter of the task that a config describes.

    Args:
        cfg: A config with ``default_scope`` (or a scoped ``model.type``).
        name: What to call the config in an error.

    Raises:
        MissingLibraryError: The library is not installed.
        UnknownTaskError: The config belongs to no task known here.
    """
    require_library(cfg, name)
    if 'tasks' in (cfg.get('model') or {}):  # several: the types in the config say of which libraries
        return importlib.import_module(f'{__name__}.multitask.adapter').Adapter(cfg)
    if (scope := scope_of(cfg)) not in versions.TASKS:
        raise UnknownTaskError(f'{name}: default_scope = {scope!r}, expected one of {", ".join(versions.TASKS)}')
    return adapter_of(scope)


def import_folder(library: str) -> None:
    """Import the folder of the task of a library, given its import name: its classes are registered then."""
    importlib.import_module(f'{__name__}.{versions.TASKS[library]}')


def adapter_of(library: str) -> 'TaskAdapter':
    """What the tools know about the task of a library, given its import name."""
    return importlib.import_module(f'{__name__}.{versions.TASKS[library]}.adapter').Adapter()
