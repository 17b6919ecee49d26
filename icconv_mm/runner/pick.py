"""Picks the images that are worth annotating next: uncertain predictions on images unlike each other."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from icconv_mm.errors import ArgumentError
from icconv_mm.files import atomic_write
from icconv_mm.tasks.adapter import TaskAdapter

_THUMBNAIL = 480  # pixels of the longer side
_TEMPLATE = 'pick.html'


class ImageFeatures:
    """Keeps the mean of a backbone's last map, for each image of a batch.

    Args:
        model: A model with a backbone.

    Raises:
        ArgumentError: It has none.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(getattr(model, 'backbone', None), nn.Module):
            raise ArgumentError('pick', f'{type(model).__name__} has no backbone, by whose features images differ')
        self._maps: list[Tensor] = []
        model.backbone.register_forward_hook(self._keep)

    def _keep(self, backbone: BaseModule, inputs: Any, outputs: Any) -> None:
        last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
        self._maps.append(last.detach().float().mean((2, 3)).cpu())

    def take(self, count: int) -> Tensor:
        """Returns the features [n, channels] of a batch of ``count`` images, the mean of all maps of it."""
        maps, self._maps = [each for each in self._maps if len(each) == count], []
        return torch.stack(maps).mean(0)


def pick_images(uncertainties: np.ndarray, features: np.ndarray, count: int) -> list[int]:
    """Returns the indices of the images to annotate, the first one first.

    The first has the largest uncertainty. Each next one has the largest product of its uncertainty and its distance
    to the nearest image that was picked before: k-center greedy (core-set, https://arxiv.org/abs/1708.00489) with
    weights. Of equal ones the first is picked.

    Args:
        uncertainties: From 0 to 1, [n].
        features: A vector for each image, [n, channels], of which each channel is brought to a deviation of 1.
        count: How many are picked, at most n.
    """
    weights = np.asarray(uncertainties, float) + 1e-6  # where no image is uncertain, distances decide
    features = np.asarray(features, float)
    features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-12)
    distances = np.ones(len(weights))
    picked: list[int] = []
    while len(picked) < min(count, len(weights)):
        values = weights * distances
        values[picked] = -1.0
        picked.append(int(values.argmax()))
        apart = np.linalg.norm(features - features[picked[-1]], axis=1)
        distances = apart if len(picked) == 1 else np.minimum(distances, apart)
    return picked


def uncertainty_of(parts: Mapping[str, TaskAdapter], sample: Any) -> float:
    """Returns how unsure a network is of its predictions for an image, the mean of its tasks, from 0 to 1."""
    return float(np.mean([each.uncertainty(sample.get(name) if name else sample) for name, each in parts.items()]))


def write_picks(out: Path, picked: Sequence[tuple[Path, float]], drawn: Sequence[np.ndarray]) -> dict[str, Path]:
    """Writes ``pick.txt``, a path in each line, and ``pick.html``, a page of these images; returns both by name.

    Args:
        out: The folder.
        picked: Images with their uncertainty, the first one first.
        drawn: The images with their predictions [h, w, 3], BGR.
    """
    files = {'pick': out / 'pick.txt', 'pick.html': out / _TEMPLATE}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(Path(__file__).with_name(_TEMPLATE).read_text())
    images = [(path, f'{value:.2f}', _thumbnail(image)) for (path, value), image in zip(picked, drawn, strict=True)]
    with atomic_write(files['pick.html']) as file:
        file.write(template.render(images=images).encode(errors='replace'))
    with atomic_write(files['pick']) as file:
        file.write(''.join(f'{path.absolute()}\n' for path, _ in picked).encode(errors='surrogateescape'))
    return files


def _thumbnail(image: np.ndarray) -> str:
    """Returns an image as a data URL of a JPEG, with a longer side of at most 480 pixels."""
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return 'data:image/jpeg;base64,' + base64.b64encode(cv2.imencode('.jpg', small)[1].tobytes()).decode()
