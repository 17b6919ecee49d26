"""What the tools are made of: a package for each that is more than one file, by the tool's name.

Attributes:
    HOME: The folder that holds ``configs`` and ``tools``.
"""

from pathlib import Path

HOME = Path(__file__).resolve().parents[2]
