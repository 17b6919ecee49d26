"""Installed distributions as links in another environment: a clean one, for which nothing is fetched."""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement


def requirements(names: list[str]) -> set[str]:
    """The names and, recursively, those of what they require here."""
    packages: set[str] = set()
    while names:
        name = names.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on another platform
        if name in packages:
            continue
        packages.add(name)
        wanted = (Requirement(text) for text in distribution.requires or ())
        names += [
            requirement.name
            for requirement in wanted
            if requirement.marker is None or requirement.marker.evaluate({'extra': ''})
        ]
    return packages


def link(distributions: set[str], site: Path) -> None:
    """The folders and modules of distributions, as links in ``site``."""
    for name in distributions:
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files} - {'..', '__pycache__', 'bin'}:
            source = Path(distribution.locate_file(part))
            if source.exists() and not (site / part).exists():
                (site / part).symlink_to(source)
