"""Functions that walk a config and its nested datasets, as configs or built."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch.utils.data import Dataset


def entries(node: Any) -> dict[str, Any]:
    """Returns the entries of a dict or a list of a config, by their names on the command line."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    return {str(key): value for key, value in items}


def walk(cfg: Any, name: str = '') -> Iterator[tuple[str, dict]]:
    """Yields each dict of a config or of a part of one with its dotted name, outer ones first; they may be changed."""
    node = cfg._cfg_dict if isinstance(cfg, Config) else cfg  # a Config is no dict, but wraps one
    if isinstance(node, dict):
        yield name, node
    for key, value in entries(node).items():
        yield from walk(value, f'{name}.{key}'.lstrip('.'))


def walk_dicts(cfg: Any) -> Iterator[dict]:
    """Yields the dicts of :func:`walk`."""
    return (node for _, node in walk(cfg))


def texts_in(node: Any, name: str = '') -> Iterator[tuple[str, str]]:
    """Yields each string in a part of a config with its dotted name, keys included."""
    if isinstance(node, str):
        yield name, node
    for key, value in entries(node).items():
        yield name, key
        yield from texts_in(value, f'{name}.{key}'.lstrip('.'))


def kind_of(node: Mapping[str, Any]) -> str:
    """Returns the class that a dict of a config builds, without its scope; '' if it builds none."""
    kind = node.get('type') or ''
    return kind.__name__ if isinstance(kind, type) else str(kind).split('.')[-1]


def as_list(value: Any) -> list:
    """Returns a setting as a list, whether it is one value or several."""
    return list(value) if isinstance(value, (list, tuple)) else [value]


def join_root(root: str, path: str) -> str:
    """Joins ``data_root`` and a path as a dataset does; an absolute path is unchanged."""
    if not root or '://' in str(path):
        return str(path)
    return f'{root.rstrip("/")}/{path}' if '://' in root else str(Path(root, path))


@dataclass(frozen=True)
class DatasetAt:
    """A dataset in a config."""

    location: str  # its dotted name, such as 'train_dataloader.dataset'
    cfg: Any  # the dataset's config
    is_leaf: bool  # whether the dataset reads files; otherwise it wraps other datasets
    pipeline: list  # the config's list of transforms; empty if it has none
    transforms: tuple[dict, ...]  # all dicts in the pipeline, nested ones included


def datasets_of(cfg: Mapping[str, Any]) -> dict[str, tuple[DatasetAt, ...]]:
    """Returns the datasets of each phase, wrappers before the wrapped; a phase without data has none."""
    found = {}
    for phase in ('train', 'val', 'test'):
        loader, name = cfg.get(f'{phase}_dataloader'), f'{phase}_dataloader.dataset'
        found[phase] = ()
        for location, dataset in datasets_in(loader['dataset'], name) if loader else ():
            pipeline = (dataset.get('pipeline') if isinstance(dataset, Mapping) else None) or []
            transforms = tuple(walk_dicts(pipeline))
            found[phase] += (DatasetAt(location, dataset, not _parts(dataset), pipeline, transforms),)
    return found


def datasets_in(dataset: Mapping[str, Any] | Dataset, name: str) -> Iterator[tuple[str, Any]]:
    """Yields a dataset and the datasets that it wraps (``RepeatDataset``, ``ConcatDataset``, ...), outer ones first.

    Each with its dotted name in the config, which begins with ``name``, that of the first. Also for built datasets:
    wrappers use the same names for their parts.
    """
    yield name, dataset
    for step, part in _parts(dataset):
        yield from datasets_in(part, f'{name}.{step}')


def leaf_datasets(dataset: Mapping[str, Any] | Dataset, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the datasets of :func:`datasets_in` that read files."""
    return ((where, each) for where, each in datasets_in(dataset, name) if not _parts(each))


def with_pipeline(cfg: Mapping[str, Any]) -> list[Any]:
    """Returns the configs of :func:`datasets_in` that have a pipeline."""
    return [each for _, each in datasets_in(cfg, '') if each.get('pipeline')]


def _parts(dataset: Mapping[str, Any] | Dataset) -> list[tuple[str, Any]]:
    """Returns the datasets that a wrapper wraps, with their names; none for a dataset that reads files."""
    members = dataset if isinstance(dataset, Mapping) else getattr(dataset, '__dict__', {})
    if isinstance(members.get('dataset'), (Mapping, Dataset)):
        return [('dataset', members['dataset'])]
    return [(f'datasets.{name}', part) for name, part in entries(members.get('datasets')).items()]
