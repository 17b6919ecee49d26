"""An image for a network, as a file or as pixels. Needs numpy alone, as exported files do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEIC_SUFFIXES = ('.heic', '.heif')


@dataclass
class InputImage:
    """An input image.

    Attributes:
        path: Its file, or the name of a video's frame.
        image: [H, W, 3], BGR; None if the pipeline reads the file.
        shape: Height and width of the original if ``image`` is reduced.
    """

    path: Path
    image: np.ndarray | None = None
    shape: tuple[int, int] | None = None
