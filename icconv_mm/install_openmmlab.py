"""Runs :mod:`icconv_mm.app.install_openmmlab`: ``python -m icconv_mm.install_openmmlab``, the standard library alone."""

import sys

from icconv_mm.app.install_openmmlab import main

if __name__ == '__main__':
    sys.exit(main())
