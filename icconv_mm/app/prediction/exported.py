"""Predicts with an exported file as :class:`icconv_mm.app.prediction.checkpoint.Predictor` does with a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from icconv_mm.app.prediction.network import GivenImage
from icconv_mm.app.runs.input_image import HEIC_SUFFIXES, InputImage
from icconv_mm.errors import naming
from icconv_mm_runtime import Result, RuntimeInputError, Session
from icconv_mm_runtime.images import Sample, read_all


class ExportedNetwork:
    """An exported file as a :class:`icconv_mm.app.prediction.network.Network`.

    Args:
        file: The file.
        device: As for :class:`icconv_mm_runtime.Session`.

    Raises:
        InputError: The file or the device cannot be used.
    """

    settings = ''

    def __init__(self, file: str | Path, device: str | None = None) -> None:
        with naming('', RuntimeInputError):
            self.session = Session(file, device=device)
        self.descriptions = self.session.tasks

    def pixels(self, image: GivenImage, longest: int | None = None) -> np.ndarray:
        """Returns the image [H, W, 3], BGR, in full."""
        given = (str(image.path), image.image) if isinstance(image, InputImage) else Path(image)
        if isinstance(given, Path) and given.suffix.lower() in HEIC_SUFFIXES:
            from icconv_mm.app.runs.images import read_image  # needs OpenMMLab

            given = str(image), read_image(given)
        with naming('', RuntimeInputError):
            return next(read_all([given]))[1]

    def read(self, image: GivenImage) -> tuple[Sample, object]:
        """Returns an image ready for the network, and the key of its batch: its size, unless the file pads images."""
        name, pixels = str(image.path if isinstance(image, InputImage) else image), self.pixels(image)
        with naming('', RuntimeInputError):
            return self.session.read(name, pixels)

    def run_batch(self, batch: Sequence[Sample]) -> list[Result]:
        """Returns the results of a batch."""
        with naming('', RuntimeInputError):
            return self.session.run_batch(batch)

    def result(self, image: GivenImage, sample: Result, longest: int | None = None) -> Result:
        """Returns the result of :meth:`run_batch`, which has the image."""
        return sample
