"""The task libraries: one folder each, and the only code that imports them.

The registry imports a folder once its library is imported, not before: each library costs seconds at start-up, and a
config needs only one. What the tools know about a task is its ``adapter.py``, a
:class:`~icconv_mm.tasks.base.TaskAdapter`.
"""

from icconv_mm.tasks.lookup import MissingLibraryError, adapter_of, import_folder, require_library, scope_of
from icconv_mm.tasks.select import UnknownTaskError, get_task

__all__ = [
    'MissingLibraryError', 'UnknownTaskError', 'adapter_of', 'get_task', 'import_folder', 'require_library', 'scope_of',
]  # fmt: skip
