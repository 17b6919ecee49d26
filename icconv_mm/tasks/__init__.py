"""Adapters to the task libraries: one folder per library, and the only code that imports it.

The registry imports a folder only after its library is imported: each library adds seconds to start-up, and a config
needs only one. A folder's ``Adapter`` tells the tools about its task: a
:class:`~icconv_mm.tasks.adapter.TaskAdapter`.
"""
