"""Images and annotation files: reading them with an error that names the file, checks, and the miniature set.

Its modules are imported by name: :mod:`icconv_mm.datasets.miniature`, :mod:`icconv_mm.datasets.loading` (which needs
mmcv) and :mod:`icconv_mm.datasets.checks`.
"""
