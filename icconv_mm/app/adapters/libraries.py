"""The adapter of a config's task library."""

from icconv_mm import versions
from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.errors import MissingLibraryError, naming
from icconv_mm.tasks.libraries import NO_LIBRARY


def require_library(scope: str | None, name: str = 'the config') -> None:
    """Raises MissingLibraryError if the library of a config, given by :func:`scope_of`, is not installed."""
    if scope in NO_LIBRARY:
        return
    supported = versions.SUPPORTED.get(scope)
    if not versions.is_installed(scope):
        hint = f': pip install "{supported[0][0]}>={supported[1]},<{supported[2]}"' if supported else ''
        raise MissingLibraryError(f"{name} needs {scope} (default_scope = '{scope}'), which is not installed{hint}")
    if supported:
        with naming(name):
            versions.check_versions((scope,))


def adapter_of(library: str) -> TaskAdapter:
    """Imports a library, given by its import name, and returns its adapter.

    Raises:
        KeyError: The library is not in :data:`icconv_mm.registry.LIBRARIES`.
    """
    try:
        if library == 'mmdet':
            from icconv_mm.app.adapters.detection import Adapter
        elif library == 'mmseg':
            from icconv_mm.app.adapters.semantic import Adapter
        elif library == 'mmpose':
            from icconv_mm.app.adapters.pose import Adapter
        elif library == 'mmpretrain':
            from icconv_mm.app.adapters.classification import Adapter
        else:
            raise KeyError(library)
    except (ImportError, TypeError) as error:
        versions.explain_import(error, library)
        raise
    return Adapter()
