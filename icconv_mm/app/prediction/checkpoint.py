"""Predicts images with a checkpoint."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.runner import load_state_dict
from torch import nn

from icconv_mm.app.prediction.network import GivenImage, predict_each
from icconv_mm.app.prediction.pick import ImageFeatures
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.images import (
    InputImage,
    load_input,
    read_image,
    write_image,
)
from icconv_mm.app.runs.prepare import Predicting
from icconv_mm.app.runs.thresholds import stored_thresholds
from icconv_mm.checkpoints import reading
from icconv_mm.checkpoints.matching import check_fits, float_array, state_dict_of
from icconv_mm.errors import ArgumentError, InputError, message_of, naming
from icconv_mm_runtime.drawing import LONGEST
from icconv_mm_runtime.finite import is_finite
from icconv_mm_runtime.results import Result


class Predictor:
    """Predicts image files with a model of any task.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config, changed in place, or its file.
        checkpoint: File with the weights of the model, which must fit in every key.
        device: Device of the model, such as ``'cuda:0'``; by default an accelerator if there is one.
        palette: One colour (R, G, B) per class for drawing; by default those of the checkpoint or the config.

    Attributes:
        descriptions: Kind, class names and colours of each task by name, as in the metadata of an exported file.
        settings: Model and test dataset of the config, as JSON.
        task: The adapter of the task.
        model: The model in evaluation mode.
        dataset_meta: Class names and colours, from the checkpoint, else from the config.

    Raises:
        MissingFileError: The checkpoint or the config does not exist.
        InputError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """

    def __init__(
        self, cfg: TaskRun | Config | str | Path, checkpoint: str, device: str | None = None, palette: Any = None
    ) -> None:
        purpose = Predicting()
        run = begin(cfg, checkpoint, purpose)
        self.task = run.adapter
        content = reading.read(checkpoint)
        self.model = run.build_model()
        transforms = run.inference_transforms()
        self._oriented = not any('ignore_orientation' in str(transform.get('color_type')) for transform in transforms)
        self.pipeline = run.build_pipeline()
        check_fits(self.model, content, checkpoint)
        load_state_dict(self.model, state_dict_of(content))
        with naming(checkpoint):
            self.dataset_meta = self.task.dataset_meta(content, run.datasets)
        self.parts = self.task.parts(self.dataset_meta)
        for name, (adapter, meta) in self.parts.items():
            adapter.check_names(self.model.tasks[name] if name else self.model, meta, checkpoint)
            if thresholds := stored_thresholds(checkpoint, name, adapter.class_names(meta)):
                meta['thresholds'] = thresholds
        if palette is not None:
            if '' not in self.parts:
                raise ArgumentError('palette', 'a network for several tasks takes none: each task has its own colours')
            self.dataset_meta['palette'] = palette
        self.model.to(_device(device)).eval()
        self.model.dataset_meta = self.dataset_meta
        self._checkpoint: str | None = checkpoint  # until its maps were finite once
        described = ((name, adapter.described(meta)) for name, (adapter, meta) in self.parts.items())
        self.descriptions = {name: {'name': name, **description} for name, description in described}
        config = {key: run.cfg.get(key) for key in ('model', 'test_dataloader')}
        self.settings = json.dumps(config, default=lambda value: type(value).__name__, sort_keys=True)
        self._features: ImageFeatures | None = None

    def keep_features(self) -> None:
        """Lets data samples have ``features`` from now on: the mean of the backbone's last map, [channels].

        Raises:
            ArgumentError: The model has no backbone.
        """
        self._features = self._features or ImageFeatures(self.model)

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the class names by label."""
        return self.task.class_names(self.dataset_meta)

    def predict(self, paths: Sequence[GivenImage], batch_size: int = 1) -> Iterator[tuple[str, Any]]:
        """Yields each path and the model's data sample for it.

        Raises:
            ImageFileError: A file is missing, truncated or no image.
            ArgumentError: The batch size is less than 1.
        """
        for image, sample in predict_each(self, paths, batch_size):
            yield _name_of(image), sample

    def read(self, image: GivenImage) -> tuple[Any, None]:
        """Returns the pipeline's result for an image, and the original shape if the image was reduced; and no key."""
        given = image if isinstance(image, InputImage) else load_input(Path(image), self._oriented)
        results = self.task.model_input(str(given.path), self.dataset_meta)
        if given.image is not None:
            results['img'] = given.image
        return (self.pipeline(results), given.shape), None

    def run_batch(self, batch: Sequence[tuple[dict, tuple[int, int] | None]]) -> list[Any]:
        """Returns the model's data samples for a batch."""
        if self._features is not None:
            self._features.clear()
        with torch.no_grad(), _finite_maps(self.model, self._checkpoint) if self._checkpoint else nullcontext():
            samples = self.model.test_step(pseudo_collate([packed for packed, _ in batch]))
        self._checkpoint = None
        if self._features is not None:
            for sample, vector in zip(samples, self._features.take(len(batch)), strict=True):
                sample.set_metainfo({'features': vector.numpy()})
        for sample, (_, shape) in zip(samples, batch):
            if shape is not None:
                self.task.enlarge(sample, shape)
        return samples

    def pixels(self, image: GivenImage, longest: int | None = None) -> np.ndarray:
        """Returns an image [H, W, 3], BGR, that the predictions refer to, reduced if ``longest`` is given."""
        return image.image if isinstance(image, InputImage) else read_image(Path(image), longest, self._oriented)

    def result(self, image: GivenImage, sample: Any, longest: int | None = None) -> Result:
        """Returns a data sample as a result: see :class:`icconv_mm.app.prediction.network.Network`."""
        tasks = {
            name: adapter.predictions(sample.get(name) if name else sample) for name, (adapter, _) in self.parts.items()
        }
        shape = tuple(int(side) for side in sample.ori_shape[:2])
        for arrays in tasks.values():
            for key in {'masks', 'seg_map'} & arrays.keys() if longest is None else ():  # smaller of a large image
                arrays[key] = resized_labels(arrays[key], shape)
            if (labels := arrays.get('seg_map')) is not None:
                arrays['seg_map'] = labels.astype(np.uint8 if labels.max() < 256 else np.int32)
        pixels = None if longest == 0 else self.pixels(image, longest)
        return Result(_name_of(image), pixels, tasks, self.descriptions, shape=shape)

    def draw(self, path: str | Path, sample: Any, out_file: str | Path, score_thr: float | None = None) -> None:
        """Writes the image at ``path`` with its predictions to ``out_file``: JPEG, PNG, BMP, TIFF or WebP."""
        write_image(self.result(path, sample, LONGEST).plot(score_thr), Path(out_file))


@contextmanager
def _finite_maps(model: nn.Module, checkpoint: str) -> Iterator[None]:
    """Raises InputError in the block if the backbone's maps overflow, though all weights are finite."""

    def check(backbone: nn.Module, images: Any, maps: Any) -> None:
        arrays = map(float_array, maps if isinstance(maps, (list, tuple)) else [maps])
        if not all(array is None or is_finite(array) for array in arrays):
            raise InputError(f"{checkpoint}: the backbone's maps are not finite: such a network predicts nothing")

    backbone = getattr(model, 'backbone', None)
    handle = backbone.register_forward_hook(check) if isinstance(backbone, nn.Module) else None
    try:
        yield
    finally:
        handle.remove() if handle else None


def _device(given: str | None) -> torch.device:
    """Returns the device of a name; an accelerator, if there is one, without a name.

    Raises:
        ArgumentError: It cannot be used.
    """
    if given is None:
        return torch.device(get_device())
    try:
        device = torch.device(given)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter without a driver
        raise ArgumentError('device', f'{given}: {message_of(error).splitlines()[0]}') from None
    return device


def resized_labels(labels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns masks [n, h, w] or a segmentation map [h, w] in another shape (height, width), by the nearest pixel."""
    if labels.shape[-2:] == tuple(shape):
        return labels
    rows, columns = (np.arange(new) * old // new for new, old in zip(shape, labels.shape[-2:]))
    return labels[..., rows[:, None], columns]


def _name_of(image: GivenImage) -> str:
    return str(image.path if isinstance(image, InputImage) else image)
