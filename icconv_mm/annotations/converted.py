"""What a task needs for training, written."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Converted:
    """One task's labels, as written for a training.

    Attributes:
        task: One of :data:`icconv_mm.annotations.TASKS`.
        root: The folder that holds all images.
        files: The file of each split; of another one where :func:`fill_splits` says so.
        classes: Names by label.
        counts: Objects of each class; shares of the pixels for segmentation maps.
        splits: How many images each split has.
        paths: The images of each split; ``annotations``, how many they have.
        sizes: Width and height of each image, [n, 2].
        boxes: Width and height of each thing in shares of the longer side of its image, [m, 2].
        keypoints, skeleton: As of :class:`icconv_mm.annotations.dataset.Dataset`.
        flip_pairs: Pairs of keypoints that are swapped by a flip; None where nothing says which.
        notes: What was decided, in sentences.
    """

    task: str
    root: Path
    files: dict[str, Path] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    paths: dict[str, list[Path]] = field(default_factory=dict)
    annotations: dict[str, int] = field(default_factory=dict)
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[tuple[int, int]] = field(default_factory=list)
    flips: list[tuple[str, str]] | None = None
    notes: list[str] = field(default_factory=list)
