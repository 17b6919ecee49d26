"""The task libraries: one folder each, and the only code that imports them.

The registry imports a folder once its library is imported, not before: each library costs seconds at start-up, and a
config needs only one. What the tools know about a task is its ``adapter.py``, a
:class:`~icconv_mm.tasks.adapter.TaskAdapter`.
"""
