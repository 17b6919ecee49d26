"""Runs :mod:`icconv_mm.app.install_openmmlab`, which needs the standard library alone."""

import sys

from icconv_mm.app.install_openmmlab import main

if __name__ == '__main__':
    sys.exit(main())
