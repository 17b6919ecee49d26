"""Picks the images that are worth annotating next: uncertain predictions on images unlike each other."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.errors import ArgumentError
from icconv_mm.files import atomic_write

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

    def _keep(self, backbone: nn.Module, inputs: Any, outputs: Any) -> None:
        last = outputs[-1] if isinstance(outputs, (tuple, list)) else outputs
        if not isinstance(last, Tensor) or last.dim() not in (2, 3, 4):
            return
        last = last.detach().float()
        # a map [n, channels, height, width], tokens [n, tokens, channels], or a vector
        self._maps.append({4: lambda: last.mean((2, 3)), 3: lambda: last.mean(1), 2: lambda: last}[last.dim()]().cpu())

    def clear(self) -> None:
        """Forgets the last batch, whose heads may have failed."""
        self._maps = []

    def take(self, count: int) -> Tensor:
        """Returns the features [n, channels] of a batch of ``count`` images, the mean of all maps of it.

        Raises:
            ArgumentError: The backbone has returned no map for each image.
        """
        maps = [feature_map for feature_map in self._maps if len(feature_map) == count]
        self.clear()
        if not maps:
            raise ArgumentError('pick', 'the backbone returns nothing for each image by which images could differ')
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
    features = np.asarray(features, np.float32)
    features = (features - features.mean(0)) / np.maximum(features.std(0), 1e-12)
    norms = (features**2).sum(1)
    squares = np.ones(len(weights))  # of the distance to the nearest one that was picked
    picked: list[int] = []
    while len(picked) < min(count, len(weights)):
        values = weights * np.sqrt(squares)
        values[picked] = -1.0
        picked.append(last := int(values.argmax()))
        apart = np.maximum(norms + norms[last] - 2 * (features @ features[last]), 0)
        squares = apart if len(picked) == 1 else np.minimum(squares, apart)
    return picked


def uncertainty_of(parts: Mapping[str, TaskAdapter], sample: Any) -> float:
    """Returns how unsure a network is of its predictions for an image, the mean of its tasks, from 0 to 1."""
    return float(np.mean([part.uncertainty(sample.get(name) if name else sample) for name, part in parts.items()]))


def write_picks(out: Path, picked: Sequence[tuple[Path, float]], drawn: Iterable[np.ndarray]) -> dict[str, Path]:
    """Writes ``pick.txt``, a path in each line, and ``pick.html``, a page of these images; returns both by name.

    Args:
        out: The folder.
        picked: Images with their uncertainty, the first one first.
        drawn: The images with their predictions [h, w, 3], BGR.
    """
    import jinja2  # most predictions pick nothing

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
