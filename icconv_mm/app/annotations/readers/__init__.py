"""Readers of the formats of annotation tools and public datasets: one module for each family of formats.

Each has a function ``FORMAT_sources(files)``. For everything that it recognises among
:class:`icconv_mm.app.annotations.images_on_disk.Files`, it yields the format's name, the file or folder, and a function
that reads it.
"""
