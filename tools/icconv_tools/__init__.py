"""What is behind the tools: a package for each that is more than one file, by the tool's name."""

from pathlib import Path

HOME = Path(__file__).resolve().parents[2]  # the folder that holds configs and tools
