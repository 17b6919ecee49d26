"""The datasets of a config, below wrappers that OpenMMLab nests: as configs or built."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch.utils.data import Dataset


def phase_datasets(cfg: Mapping[str, Any], *phases: str) -> Iterator[tuple[str, Any]]:
    """The datasets of the phases (``'train'``, ``'val'``, ``'test'``) that a config has, each after its dotted name."""
    for phase in phases:
        if loader := cfg.get(f'{phase}_dataloader'):
            yield f'{phase}_dataloader.dataset', loader['dataset']


def datasets_in(dataset: Mapping[str, Any] | Dataset, name: str) -> Iterator[tuple[str, Any]]:
    """A dataset and those below it if it is a wrapper (``RepeatDataset``, ``ConcatDataset``, ...), outer ones first.

    Args:
        dataset: A dataset, or the config of one: wrappers call the parts by the same names.
        name: Place of the dataset in the whole config, such as ``'train_dataloader.dataset'``.

    Yields:
        The dotted name of each in the config, and the dataset or its config.
    """
    yield name, dataset
    for step, part in _parts(dataset):
        yield from datasets_in(part, name + step)


def leaf_datasets(dataset: Mapping[str, Any] | Dataset, name: str) -> Iterator[tuple[str, Any]]:
    """The datasets of :func:`datasets_in` that read files."""
    return ((where, each) for where, each in datasets_in(dataset, name) if not _parts(each))


def with_pipeline(cfg: Mapping[str, Any]) -> list[Any]:
    """The configs among :func:`datasets_in` that have a pipeline."""
    return [each for _, each in datasets_in(cfg, '') if each.get('pipeline')]


def _parts(dataset: Mapping[str, Any] | Dataset) -> list[tuple[str, Any]]:
    """What a wrapper wraps, and where: nothing for a dataset that reads files."""
    members = dataset if isinstance(dataset, Mapping) else vars(dataset)
    if isinstance(members.get('dataset'), (Mapping, Dataset)):
        return [('.dataset', members['dataset'])]
    if isinstance(parts := members.get('datasets'), Mapping):
        return [(f'.datasets.{name}', part) for name, part in parts.items()]
    if isinstance(parts, (list, tuple)):
        return [(f'.datasets[{i}]', part) for i, part in enumerate(parts)]
    return []
