"""The public names of :mod:`icconv_mm_runtime.extra.web`: a page that runs an exported network in a browser."""

from icconv_mm_runtime.extra.web import FOLDER_VARIABLE, library_version, package, server, write_page

__all__ = ['FOLDER_VARIABLE', 'library_version', 'package', 'server', 'write_page']
