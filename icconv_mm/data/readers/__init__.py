"""Readers of what labelling tools and public sets write: one module per family of formats.

Each has ``sources(files)``, which yields a name of the format, the file or folder, and a function that reads it, for
all that it recognises among :class:`icconv_mm.data.found.Files`.
"""
