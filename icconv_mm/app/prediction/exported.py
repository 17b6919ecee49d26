"""Predicts with an exported file where :class:`icconv_mm.app.prediction.predict.Predictor` does with a checkpoint."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.app.runs.images import HEIC_SUFFIXES, InputImage, read_image, write_image
from icconv_mm.errors import InputError, naming
from icconv_mm_runtime import Result, RuntimeInputError, Session
from icconv_mm_runtime.coco import coco_records
from icconv_mm_runtime.results import Arrays


class ExportedTask:
    """One task of an exported file: its predictions and COCO records, as a task adapter returns them."""

    def __init__(self, description: Mapping[str, Any]) -> None:
        self.description, self.kind = description, description['kind']

    def described(self, dataset_meta: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the task's description."""
        return self.description

    def predictions(self, sample: Result) -> Arrays:
        """Returns the arrays for an image."""
        return sample.tasks[self.description['name']]

    def set_tracks(self, sample: Result, tracks: np.ndarray) -> None:
        """Adds the number of each object's track, [n]."""
        self.predictions(sample)['tracks'] = tracks

    def coco_records(self, sample: Result, image_id: int, category_ids: Sequence[int], score_thr: float) -> list[dict]:
        """Returns the predictions for one image as entries of a COCO results file, from the score ``score_thr`` up."""
        return coco_records(self.description, self.predictions(sample), image_id, score_thr, category_ids or None)


class ExportedPredictor:
    """Predicts image files with an exported file.

    Args:
        file: The file.
        device: As for :class:`icconv_mm_runtime.Session`.

    Raises:
        InputError: The file or the device cannot be used.
    """

    def __init__(self, file: str, device: str | None = None) -> None:
        try:
            self.session = Session(file, device=device)
        except RuntimeInputError as error:  # names the file
            raise InputError(str(error)) from None
        self.task, self.dataset_meta = self, {}

    def parts(self, dataset_meta: Mapping[str, Any]) -> dict[str, tuple[ExportedTask, dict]]:
        """Returns the tasks by name; '' is the name of a single task."""
        return {name: (ExportedTask(task), {}) for name, task in self.session.tasks.items()}

    def predict(self, images: Iterable[Path | InputImage], batch_size: int = 1) -> Iterator[tuple[str, Result]]:
        """Yields each path and its predictions.

        Raises:
            InputError: An image cannot be used.
        """
        for path, found in self.try_predict(images, batch_size):
            if isinstance(found, Exception):
                raise found
            yield path, found

    def try_predict(
        self, images: Iterable[Path | InputImage], batch_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[str, Result | InputError]]:
        """Yields the same as :meth:`predict`, but an error in place of the predictions if an image fails."""
        for path, found in self.session.try_predict(map(_readable, images), batch_size):
            yield path, InputError(str(found)) if isinstance(found, RuntimeInputError) else found

    def predict_tiles(self, path: Path, tile: int) -> Result:
        """Returns the predictions for an image that is cut into overlapping squares of ``tile`` pixels."""
        with naming(str(path), RuntimeInputError):
            return next(self.session.predict([_readable(path)], tile=tile))

    def drawn(self, given: Path | InputImage, sample: Result, score_thr: float | None = None) -> np.ndarray:
        """Returns the image with its predictions [h, w, 3], BGR, with a longer side of at most 4096 pixels."""
        return sample.plot(score_thr)

    def draw(self, path: Path, sample: Result, out_file: Path, score_thr: float | None = None) -> None:
        """Writes the image with its predictions."""
        write_image(self.drawn(path, sample, score_thr), out_file)


def _readable(given: Path | InputImage) -> Any:
    """Returns an image as a session takes it: a path, or a name and pixels."""
    if isinstance(given, InputImage):
        return str(given.path), given.image
    return (str(given), read_image(given)) if given.suffix.lower() in HEIC_SUFFIXES else str(given)
