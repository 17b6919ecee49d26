"""Readers of what annotation tools and public datasets write: one module for each family of formats.

Each has a function ``FORMAT_sources(files)``. It yields a name of the format, the file or folder, and a function that
reads it, for all that it recognises among :class:`icconv_mm.annotations.images_on_disk.Files`.
"""
