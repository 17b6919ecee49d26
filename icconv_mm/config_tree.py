"""Functions that walk a config and its nested datasets, as configs or built."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from torch.utils.data import Dataset

from icconv_mm.errors import InputError, naming


class Node(NamedTuple):
    """A dict in a config, which may be changed."""

    location: str  # its dotted name; '' for the whole config
    cfg: dict

    @property
    def kind(self) -> str:
        """Returns the class that the dict builds now, as :func:`kind_of`."""
        return kind_of(self.cfg)

    @property
    def part(self) -> str:
        """Returns the key of the whole config that the dict is in, such as ``'model'``."""
        return self.location.partition('.')[0]

    @property
    def texts(self) -> Iterator[tuple[str, str]]:
        """Yields the strings of the dict and of its lists with their dotted names, keys included."""
        left = [(self.location, self.cfg)]
        for name, value in left:
            if isinstance(value, str):
                yield name, value
            elif value is self.cfg or isinstance(value, (list, tuple)):
                yield from ((name, key) for key in entries(value))
                left += [(f'{name}.{key}'.lstrip('.'), item) for key, item in entries(value).items()]

    @property
    def data_paths(self) -> list[tuple[str, str, bool]]:
        """Returns what a dataset or a metric reads: the dotted name of the setting, the path, whether it is a folder.

        Paths with a scheme (``s3://``) are left out.

        Raises:
            InputError: A path is a number; or segmentation maps are to be read by HTTP, which cannot list a folder,
                without an ``ann_file``.
        """
        ann_file, prefixes = self.cfg.get('ann_file'), self.cfg.get('data_prefix')
        prefixes = prefixes if isinstance(prefixes, Mapping) else {}
        with naming(self.location, TypeError):
            root = os.fspath(self.cfg.get('data_root') or '')
            maps = join_root(root, prefixes.get('seg_map_path') or '')
            if maps.startswith(('http://', 'https://')) and 'seg_map_path' in prefixes and not ann_file:
                raise InputError(f'{maps} is no folder that can be listed: give ann_file, names without their suffix')
            if '://' in root:
                return []
            paths = [('data_root', root, True)] if root else []
            if ann_file and '://' not in str(ann_file):
                paths.append(('ann_file', join_root(root, ann_file), False))
            for key, prefix in prefixes.items():
                if prefix and '://' not in str(prefix):
                    paths.append((f"data_prefix['{key}']", join_root(root, prefix), True))
            return [(f'{self.location}.{name}', path, is_folder) for name, path, is_folder in paths]


def entries(node: Any) -> dict[str, Any]:
    """Returns the entries of a dict or a list of a config, by their names on the command line."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    return {str(key): value for key, value in items}


def walk(cfg: Any, name: str = '') -> Iterator[Node]:
    """Yields each dict of a config or of a part of one, whose dotted name is ``name``; outer ones first."""
    node = cfg._cfg_dict if isinstance(cfg, Config) else cfg  # a Config is no dict, but wraps one
    if isinstance(node, dict):
        yield Node(name, node)
    for key, value in entries(node).items():
        yield from walk(value, f'{name}.{key}'.lstrip('.'))


def walk_dicts(cfg: Any) -> Iterator[dict]:
    """Yields the dicts of :func:`walk`."""
    return (node.cfg for node in walk(cfg))


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
    transforms: tuple[Node, ...]  # all dicts of the pipeline, nested ones included

    @property
    def ann_file(self) -> str:
        """Returns the path of its annotation file, as the dataset joins it; '' without one."""
        path = self.cfg.get('ann_file') if isinstance(self.cfg, Mapping) else None
        return join_root(self.cfg.get('data_root') or '', path) if path else ''

    @property
    def image_folder(self) -> str:
        """Returns the folder of its images, as the dataset joins it; '' if the config names none."""
        prefixes = self.cfg.get('data_prefix') or {}
        folder = prefixes.get('img', prefixes.get('img_path', '')) if isinstance(prefixes, Mapping) else prefixes
        root = self.cfg.get('data_root') or ''
        return join_root(root, folder or '') if root or folder else ''


def datasets_of(cfg: Mapping[str, Any]) -> dict[str, tuple[DatasetAt, ...]]:
    """Returns the datasets of each phase, wrappers before the wrapped; a phase without data has none."""
    datasets = {}
    for phase in ('train', 'val', 'test'):
        loader, name = cfg.get(f'{phase}_dataloader'), f'{phase}_dataloader.dataset'
        datasets[phase] = ()
        for location, dataset in datasets_in(loader['dataset'], name) if loader else ():
            pipeline = (dataset.get('pipeline') if isinstance(dataset, Mapping) else None) or []
            transforms = tuple(walk(pipeline, f'{location}.pipeline'))
            datasets[phase] += (DatasetAt(location, dataset, not _wrapped_datasets(dataset), pipeline, transforms),)
    return datasets


def datasets_in(dataset: Mapping[str, Any] | Dataset, name: str) -> Iterator[tuple[str, Any]]:
    """Yields a dataset and the datasets that it wraps (``RepeatDataset``, ``ConcatDataset``, ...), outer ones first.

    Each with its dotted name in the config, which begins with ``name``, that of the first. Also for built datasets:
    wrappers use the same names for their parts.
    """
    yield name, dataset
    for step, part in _wrapped_datasets(dataset):
        yield from datasets_in(part, f'{name}.{step}')


def leaf_datasets(dataset: Mapping[str, Any] | Dataset, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the datasets of :func:`datasets_in` that read files."""
    return ((where, node) for where, node in datasets_in(dataset, name) if not _wrapped_datasets(node))


def with_pipeline(cfg: Mapping[str, Any]) -> list[Any]:
    """Returns the configs of :func:`datasets_in` that have a pipeline."""
    return [node for _, node in datasets_in(cfg, '') if node.get('pipeline')]


def _wrapped_datasets(dataset: Mapping[str, Any] | Dataset) -> list[tuple[str, Any]]:
    """Returns the datasets that a wrapper wraps, with their names; none for a dataset that reads files."""
    members = dataset if isinstance(dataset, Mapping) else getattr(dataset, '__dict__', {})
    if isinstance(members.get('dataset'), (Mapping, Dataset)):
        return [('dataset', members['dataset'])]
    return [(f'datasets.{name}', part) for name, part in entries(members.get('datasets')).items()]
