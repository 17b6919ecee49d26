"""The library that a config is written for, which may be missing, and what belongs to its task."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from icconv_mm import versions
from icconv_mm.errors import UserError
from icconv_mm.registry import SCOPE

if TYPE_CHECKING:  # it loads mmengine's visualisers, for which reading a config has no use
    from icconv_mm.tasks.base import TaskAdapter


NO_LIBRARY = (None, 'mmengine', SCOPE)  # scopes of configs whose types say themselves of which library they are


class MissingLibraryError(UserError, ImportError):
    """A config names a task library that is not installed or not supported."""


def scope_of(cfg: Mapping[str, Any]) -> str | None:
    """The task library that a config is written for: its ``default_scope``, else the scope of its model's type."""
    scope = cfg.get('default_scope')
    if scope in NO_LIBRARY:
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
    if scope in NO_LIBRARY:
        return
    known = versions.SUPPORTED.get(scope)
    if not versions.is_installed(scope):
        hint = f': pip install "{known[0][0]}>={known[1]},<{known[2]}"' if known else ''
        raise MissingLibraryError(f"{name} needs {scope} (default_scope = '{scope}'), which is not installed{hint}")
    if known:
        try:
            versions.check((scope,))
        except ImportError as error:
            raise MissingLibraryError(f'{name}: {error}') from None


def adapter_of(library: str) -> 'TaskAdapter':
    """What the tools know about the task of a library, given its import name."""
    return versions.import_task(library, 'adapter').Adapter()
