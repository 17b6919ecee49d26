"""Checks that an exported file predicts the same as its model."""

import json
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import print_log
from torch import nn
from torch.overrides import TorchFunctionMode

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.export import comparison
from icconv_mm.config_tree import DatasetAt
from icconv_mm.datasets.loading import find_images
from icconv_mm.errors import ArgumentError, InputError, naming
from icconv_mm_runtime import Session

_IMAGES = 4  # checked images, if none are given


@dataclass(frozen=True)
class ComparedModel:
    """The model that an exported file is compared with."""

    network: nn.Module
    adapters: Mapping[str, TaskAdapter]  # by task; '' for a single task
    predict: Callable[[Sequence[Path]], Iterable[Any]]  # returns the data sample for each image of a batch


def images_to_check(datasets: Sequence[DatasetAt], name: str) -> list[Path]:
    """Returns some images of the first dataset that has images on this disk; ``name`` is the config's name.

    Raises:
        ArgumentError: No dataset has any.
    """
    for dataset in datasets:
        if not dataset.is_leaf:
            continue
        folder = Path(dataset.image_folder)
        listed = (folder / name for name in _names_in(Path(dataset.ann_file)))
        if images := list(islice(filter(Path.is_file, listed), _IMAGES)):
            return images
        if dataset.image_folder and folder.is_dir():
            return find_images(folder)[:_IMAGES]
    raise ArgumentError('images', f'{name}: the images of the test dataset are not here; name some for the check')


def _names_in(file: Path) -> list[str]:
    """Returns the image names in an annotation file: COCO, a list of segmentation maps, or ``NAME LABEL`` lines."""
    if not file.is_file():
        return []
    with naming(str(file), OSError, ValueError, LookupError, TypeError, AttributeError):
        text = file.read_text(encoding='utf-8')
        if file.suffix == '.json':
            return [image['file_name'] for image in json.loads(text)['images']]
        return [line.strip().rpartition(' ')[0] for line in text.splitlines()]


def check_file(
    model: ComparedModel, session: Session, images: Sequence[Path], limits: Mapping[str, float] | None
) -> tuple[dict[str, Any], dict[str, float]]:
    """Compares the predictions of a file with the model's, in batches of one and two images.

    In a batch of two images of one size, where nothing is padded, they must also equal those of each image alone.

    Returns the largest differences by kind, and the milliseconds per image; without limits the latter alone.

    Raises:
        InputError: A difference exceeds its limit.
    """
    differences = comparison.Differences(session.tasks, model.adapters, limits or {})
    milliseconds: dict[str, float] = {}
    alone: dict[str, Mapping] = {}
    batches = [[path] for path in images]
    for _ in (1, 2):
        seconds: dict[str, list[float]] = {'model': [], 'file': []}
        predictions = [session.predict(list(map(str, batch)), len(batch)) for batch in batches]
        predictions = _timed(chain.from_iterable(predictions), seconds['file'])
        samples = ((batch, sample) for batch in batches for sample in model.predict(batch))
        samples = _timed(samples, seconds['model'])
        sizes = {Path(prediction.path): prediction.image.shape for prediction in predictions}
        if limits is not None:
            for prediction, (batch, sample) in zip(predictions, samples, strict=True):
                is_one_size = len({sizes[path] for path in batch}) == 1
                expected = alone.get(prediction.path) if is_one_size else None
                tie = partial(is_tie, model, session, batch, limits)
                differences.add(prediction.path, prediction.tasks, sample, tie, expected)
            alone = {prediction.path: prediction.tasks for prediction in predictions}
        milliseconds = milliseconds or {
            name: round(1e3 * statistics.median(values), 1) for name, values in seconds.items()
        }
        batches = list(_pairs(images, sizes, session.metadata['batch']))
    try:
        differences.require_small()
    except InputError as error:
        if limits is not None and any(_depends_on_order(model, session, path, limits) for path in images):
            raise InputError(
                f'{error}. Equal scores are the cause: the order in which the model sorts them decides which boxes it '
                'keeps, as in a network that has hardly learned; train longer, or compare other images (--images)'
            ) from error
        raise
    if 2 * len(differences.ties) > len(images):
        what = 'rounding decides which keypoints make a person, as in a network that has hardly learned'
        print_log(
            f'people of {len(differences.ties)} of {len(images)} images differ: {what}', 'current', logging.WARNING
        )
    ties = {'ties': len(differences.ties)} if differences.ties else {}
    return {'images': len(images), **differences.largest, **ties}, milliseconds


def _pairs(images: Sequence[Path], sizes: Mapping[Path, tuple], batch: Mapping[str, Any]) -> Iterator[list[Path]]:
    """Yields the images in batches of two, of one size unless the file pads, or alone if its batch is fixed."""
    left = sorted(images, key=sizes.get)
    for _, alike in groupby(left, lambda path: batch['pads'] or sizes[path]):
        while pair := list(islice(alike, batch.get('count') or 2)):
            yield pair


def is_tie(
    model: ComparedModel,
    session: Session,
    batch: Sequence[Path],
    limits: Mapping[str, float],
    path: str,
    name: str,
) -> bool:
    """Returns whether a pose task differs from the model for an image although their heatmaps and tags agree.

    Grouping rounds distances of tags and compares neighbouring pixels: for near-equal values, the last digit decides.
    Both must hold: the file's maps equal the model's, and the runtime finds the model's people in the model's maps.
    """
    task, prefix = session.tasks[name], f'{name}.' if name else ''
    paths, outputs = list(map(str, batch)), {}
    row = paths.index(path)
    list(Session.of(session.metadata, partial(_recorded, session, outputs), session.file).predict(paths, len(paths)))
    estimator = model.network.tasks[name] if name else model.network
    settings = estimator.test_cfg
    estimator.test_cfg = type(settings)(settings, output_heatmaps=True)
    try:
        samples = [sample.get(name) if name else sample for sample in model.predict(batch)]
    finally:
        estimator.test_cfg = settings
    heatmaps, tags = (
        np.stack([getattr(sample.pred_fields, key).cpu().numpy() for sample in samples]) for key in ('heatmaps', 'tags')
    )
    tags = tags.reshape(*heatmaps.shape[:2], -1, *heatmaps.shape[2:]).swapaxes(1, 2)
    maps = {f'{prefix}heatmaps': heatmaps, f'{prefix}tags': tags}
    for key, expected in maps.items():
        limit = limits['scores'] * max(1, np.abs(expected[row]).max())
        if not np.abs(outputs[key][row] - expected[row]).max() <= limit:
            return False
    of_maps = Session.of(session.metadata, lambda _: {**outputs, **maps}, session.file)
    grouped = list(of_maps.predict(paths, len(paths)))[row].tasks[name]
    expected = model.adapters[name].predictions(samples[row])
    return comparison.is_close(comparison.compared(task, grouped, expected, limits=limits), limits)


def _depends_on_order(model: ComparedModel, session: Session, path: Path, limits: Mapping[str, float]) -> bool:
    """Returns whether the model's results for an image change with the order in which it sorts equal numbers."""
    (usual,) = model.predict([path])
    with _StableSort():
        (stable,) = model.predict([path])
    for name, task in session.tasks.items():
        pair = (sample.get(name) if name else sample for sample in (stable, usual))
        first, second = map(model.adapters[name].predictions, pair)
        if task['kind'] != 'semantic' and not comparison.is_close(comparison.compared(task, first, second), limits):
            return True
    return False


class _StableSort(TorchFunctionMode):
    """Makes torch sort equal numbers by their indices, which it leaves open."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (torch.sort, torch.Tensor.sort) and not isinstance(args[-1], bool):
            kwargs = {**(kwargs or {}), 'stable': True}
            kwargs.update(zip(('dim',), args[1:]))
            args = args[:1]
        return func(*args, **(kwargs or {}))


def _recorded(session: Session, outputs: dict[str, np.ndarray], arrays: Mapping) -> dict[str, np.ndarray]:
    outputs.update(session.run(arrays))
    return outputs


def _timed(results: Iterator, seconds: list[float]) -> list:
    """Returns all results and appends the seconds of each to ``seconds``."""
    outputs, begin = [], time.perf_counter()
    for result in results:
        outputs.append(result)
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return outputs
