"""How the command ``icconv`` was called; imports nothing that takes time, as it comes before Ctrl-C is heard."""

import os
import sys
from itertools import pairwise

SCRIPT = os.path.join(os.path.dirname(sys.executable), 'icconv')


def called_as() -> str | None:
    """Returns the script or ``'-m'`` if this process is the command; at the first import of the package."""
    words = sys.orig_argv[1:]
    if words and os.path.abspath(words[0]) == SCRIPT:
        return words[0]
    return '-m' if sys.argv[0] == '-m' and ('-m', 'icconv_mm') in pairwise(words) else None
