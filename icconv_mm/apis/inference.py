"""Predictions for images: drawn, and as COCO results."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import load_state_dict
from torch import nn

from icconv_mm._deprecated import renamed
from icconv_mm.apis.coco_results import results_of
from icconv_mm.apis.config import as_config, model_without_own_weights
from icconv_mm.apis.preparation import prepare
from icconv_mm.checkpoints import safe
from icconv_mm.checkpoints.matching import check_fits, state_dict_of
from icconv_mm.datasets.loading import find_images
from icconv_mm.datasets.nesting import with_pipeline
from icconv_mm.errors import ArgumentError, InputError, UserError, building, naming, sentence
from icconv_mm.tasks.libraries import NO_LIBRARY, scope_of
from icconv_mm.utils.config_tree import kind_of


class Predictor:
    """A model of any task, ready for image files.

    Args:
        cfg: Config of the model, which is changed in place, or its file.
        checkpoint: File with the weights of the model, which must fit in every key.
        device: Device of the model, such as ``'cuda:0'``; by default an accelerator if there is one.
        palette: One colour (R, G, B) per class for drawing; by default those of the checkpoint or the config.

    Attributes:
        task: The adapter of the task.
        model: The model in evaluation mode.
        dataset_meta: Class names and colours, from the checkpoint, else from the config.

    Raises:
        MissingFileError: There is no such checkpoint, or no such config.
        InputError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """

    def __init__(
        self, cfg: Config | str | Path, checkpoint: str, device: str | None = None, palette: Any = None
    ) -> None:
        cfg = as_config(cfg)
        self.task = prepare(cfg)
        content = safe.load(checkpoint)
        self.model = build_model(cfg)
        with building(str(cfg.filename)):
            self.pipeline = Compose(inference_transforms(cfg))
        check_fits(self.model, content, checkpoint)
        load_state_dict(self.model, state_dict_of(content))
        with naming(checkpoint):
            self.dataset_meta = self.task.dataset_meta(content, cfg)
        if palette is not None:
            self.dataset_meta['palette'] = palette
        self.model.to(device or get_device()).eval()
        self.model.dataset_meta = self.dataset_meta
        with building(f'{checkpoint}: meta.dataset_meta'):
            self.visualizer = self.task.visualizer(cfg, self.dataset_meta)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return self.task.class_names(self.dataset_meta)

    def predict(self, paths: Sequence[str | Path], batch_size: int = 1) -> Iterator[tuple[str, Any]]:
        """Yield each path and the data sample that the model returns for it.

        Raises:
            ImageFileError: A file is missing, truncated or no image.
            ArgumentError: The batch size is less than 1.
        """
        for batch in _batches(paths, batch_size):
            yield from zip(batch, self._forward([self._load(path) for path in batch]), strict=True)

    def try_predict(self, paths: Sequence[str | Path], batch_size: int = 1) -> Iterator[tuple[str, Any]]:
        """As :meth:`predict`, with the exception in the place of the data sample where an image fails."""
        for batch in _batches(paths, batch_size):
            inputs = [_attempt(self._load, path) for path in batch]
            loaded = [each for each in inputs if not isinstance(each, Exception)]
            samples = _attempt(self._forward, loaded) if loaded else []
            if isinstance(samples, Exception):  # find out which image it is
                samples = [_attempt(lambda each: self._forward([each])[0], each) for each in loaded]
            left = iter(samples)
            yield from zip(batch, [each if isinstance(each, Exception) else next(left) for each in inputs])

    def _load(self, path: str) -> dict:
        return self.pipeline(self.task.model_input(path, self.dataset_meta))

    def _forward(self, inputs: list[dict]) -> list[Any]:
        with torch.no_grad():
            return self.model.test_step(pseudo_collate(inputs))

    def draw(self, path: str | Path, sample: Any, out_file: str | Path, score_thr: float = 0.3) -> None:
        """Write the image at ``path`` with its predictions to ``out_file``."""
        image = mmcv.imread(str(path), channel_order='rgb')
        self.task.draw_predictions(self.visualizer, image, sample, score_thr, str(out_file))


def _batches(paths: Sequence[str | Path], batch_size: int) -> Iterator[list[str]]:
    if batch_size < 1:
        raise ArgumentError('batch_size', f'expected 1 or more, got {batch_size}')
    for start in range(0, len(paths), batch_size):
        yield [str(path) for path in paths[start : start + batch_size]]


def infer(
    cfg: Config | str | Path,
    checkpoint: str,
    inputs: str,
    out_dir: str,
    *,
    device: str | None = None,
    score_thr: float = 0.3,
    json_score_thr: float = 0.0,
    batch_size: int = 1,
    palette: Any = None,
    ann_file: str | None = None,
    draw: bool = True,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> dict[str, Path]:
    """Predict for a file, a folder or a glob pattern.

    Writes below ``out_dir``: ``vis/`` (images with the predictions drawn), ``predictions.json`` (a COCO results file:
    a list of detections, keypoints, or class masks of semantic segmentation) and ``images.json`` (the ``images`` and
    ``categories`` that the results refer to, so that ``COCO('images.json').loadRes('predictions.json')`` works). A
    network for several tasks writes both for each, as ``predictions.TASK.json`` and ``images.TASK.json``.

    Args:
        cfg: Config of the model, or its file.
        checkpoint: File with the weights of the model.
        inputs: The images: a file, a folder or a glob pattern.
        out_dir: Folder of the results.
        device: Device of the model, as for :class:`Predictor`.
        score_thr: Least score of predictions that are drawn.
        json_score_thr: Least score of predictions that are written to the JSON file.
        batch_size: Images per forward pass.
        palette: Colours of the classes, as for :class:`Predictor`.
        ann_file: A COCO annotation file whose ids the results use, so that they can be evaluated against it; by default
            images are numbered from 1 and a category is its label plus 1.
        draw: Whether to write images.
        progress: Wraps the list of images, as ``rich.progress.track`` does.

    Returns:
        The paths written, by name: ``vis``, ``predictions``, ``images``, with ``.TASK`` behind it for several tasks.

    Raises:
        FailedImagesError: Some images cannot be read or predicted for; the results of the others are written.
        InputError, ...: As :class:`Predictor`.
    """
    paths = find_images(inputs)
    predictor = Predictor(cfg, checkpoint, device=device, palette=palette)
    parts = results_of(predictor.task, predictor.dataset_meta, paths, ann_file)
    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    names = _unique_names(paths)
    images, failures = {}, {}
    for path, (_, sample) in zip(progress(paths), predictor.try_predict(paths, batch_size)):
        if isinstance(sample, Exception):
            failures[path] = sample
            continue
        height, width = (int(side) for side in sample.ori_shape[:2])
        images[path] = {'file_name': path.name, 'width': width, 'height': height}
        for part in parts:
            part.add(path, sample, json_score_thr)
        if draw:
            predictor.draw(path, sample, out / 'vis' / names[path], score_thr)
    if not images and not any(isinstance(error, UserError) for error in failures.values()):
        raise next(iter(failures.values()))  # no fault of the images
    written = {'vis': out / 'vis'} if draw and images else {}
    for part in parts:
        written |= part.write(out, images)
    if failures:
        raise FailedImagesError(failures, len(paths), out)
    return written


class FailedImagesError(UserError):
    """Some images could not be read or predicted for; the results of the others are written.

    Attributes:
        failures: The exception of each image.
    """

    def __init__(self, failures: Mapping[Path, Exception], total: int, out: Path) -> None:
        lines = [_named(path, sentence(error)) for path, error in failures.items()]
        rest = f'{len(lines)} of {total} images failed; the results of the others are in {out}:'
        super().__init__('\n'.join([rest, *(f'  {line}' for line in lines)]) if total > 1 else lines[0])
        self.failures = dict(failures)


def _named(path: Path, text: str) -> str:
    text = ' '.join(text.split())
    return text if text.startswith(str(path)) else f'{path}: {text}'


def _attempt(function: Callable[[Any], Any], argument: Any) -> Any:
    """What a function returns, or the exception: with an image of unforeseen size, libraries raise any."""
    try:
        return function(argument)
    except Exception as error:
        return error


def build_model(cfg: Config) -> nn.Module:
    """The model of a config of any task library, for weights that a checkpoint gives; the config is changed in place.

    Raises:
        InputError: Something that the config names cannot be built.
    """
    scope = scope_of(cfg)
    init_default_scope('mmengine' if scope in NO_LIBRARY else scope)
    with building(str(cfg.filename)):
        return revert_sync_batchnorm(MODELS.build(model_without_own_weights(cfg)))


def inference_transforms(cfg: Config) -> list[dict]:
    """The transforms of the test dataset without those that load annotations."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise InputError(f'{cfg.filename}: no test_dataloader, which says how images are prepared')
    datasets = with_pipeline(loader.dataset)
    if not datasets:
        raise InputError(f'{cfg.filename}: no pipeline in the dataset of the test_dataloader')
    transforms = datasets[0].pipeline
    kinds = map(kind_of, transforms)
    return [t for t, kind in zip(transforms, kinds) if not (kind.startswith('Load') and kind.endswith('Annotations'))]


def _unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A file name for each image; equal names from different folders get a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        numbered = (f'{path.stem}_{count}{path.suffix}' for count in itertools.count(2))
        names[path] = next(name for name in itertools.chain([path.name], numbered) if name not in taken)
        taken.add(names[path])
    return names


__getattr__ = renamed(__name__)
