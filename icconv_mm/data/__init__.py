"""Images and annotation files: reading them with an error that names the file, and checks of what they hold.

Its modules are imported by name: :mod:`icconv_mm.data.loading`, which needs mmcv, and :mod:`icconv_mm.data.checks`.
"""
