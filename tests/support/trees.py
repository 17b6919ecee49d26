"""Copies of the checkout."""

import shutil
import subprocess
from pathlib import Path


def copy_tracked(repo: Path, target: Path) -> Path:
    """Copies what git tracks, so that builds leave nothing in the checkout."""
    files = subprocess.run(['git', 'ls-files'], cwd=repo, capture_output=True, text=True, check=True).stdout.split('\n')
    for name in filter(None, files):
        if (repo / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repo / name, target / name)
    return target
