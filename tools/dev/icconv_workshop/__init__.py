"""The workshop: what is behind the scripts of ``tools/dev``, on top of the package and of the tools for users."""

import sys
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2]
if str(TOOLS) not in sys.path:  # scripts of tools/dev find the modules beside them alone
    sys.path.append(str(TOOLS))
