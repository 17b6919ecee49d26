"""Walking the parts of a config."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config


def entries(node: Any) -> dict[str, Any]:
    """What a dict or a list of a config holds, by the names that options of the command line have for it."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    return {str(key): value for key, value in items}


def places_in(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Everything in a part of a config, ``name``, with its dotted name, outer things first; they may be changed."""
    yield name, node
    for key, value in entries(node).items():
        yield from places_in(value, f'{name}.{key}')


def dicts_in(cfg: Any) -> Iterator[dict]:
    """Every dict of a config or of a part of one, outer ones first; they may be changed as they come."""
    node = cfg._cfg_dict if isinstance(cfg, Config) else cfg  # a Config is no dict, but holds one
    return (each for _, each in places_in(node, '') if isinstance(each, dict))


def kind_of(node: dict) -> str:
    """The name of what a dict of a config builds, without its scope; empty if it builds nothing."""
    kind = node.get('type') or ''
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]


def as_list(value: Any) -> list:
    """A setting that is one thing or several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]
