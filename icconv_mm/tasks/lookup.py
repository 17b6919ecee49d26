"""Task folders by the import name of their library, which may be missing: the only place that names them.

A folder is imported when it is asked for, by name, because importing it imports its library.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icconv_mm import versions
from icconv_mm.errors import UserError

if TYPE_CHECKING:  # it loads mmengine's visualisers, for which reading a config has no use
    from icconv_mm.tasks.base import TaskAdapter


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
        name: Name of the config in the message, such as its file name.
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


def import_folder(library: str) -> None:
    """Import the folder of the task of a library, given its import name: its classes are registered then."""
    importlib.import_module(f'icconv_mm.tasks.{versions.TASKS[library]}')


def adapter_of(library: str) -> 'TaskAdapter':
    """What the tools know about the task of a library, given its import name."""
    return importlib.import_module(f'icconv_mm.tasks.{versions.TASKS[library]}.adapter').Adapter()
