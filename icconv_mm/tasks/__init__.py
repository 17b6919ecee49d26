"""Registered modules of the task libraries: one folder per library.

The registry imports a folder only after its library is imported: each library adds seconds to start-up, and a config
needs only one.
"""
