"""Runs an exported file on images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.engines import RunFunction, open_file
from icconv_mm_runtime.errors import RuntimeInputError, refusing
from icconv_mm_runtime.images import Sample, arrays_of, batches, preprocess, try_read_all
from icconv_mm_runtime.metadata import check_metadata
from icconv_mm_runtime.outputs import check_outputs
from icconv_mm_runtime.results import Predictions, decode


@dataclass(frozen=True)
class Prediction:
    """Predictions for one image: its path, its pixels ``[H, W, 3]`` (uint8, BGR), and the arrays of each task.

    The task of a network for one task is called ''. Boxes: ``boxes`` [n, 4], ``scores``, ``labels``, for some ``masks``
    [n, H, W]; segmentation maps: ``seg_map`` [H, W]; poses: ``keypoints`` [n, K, 2], ``keypoint_scores``, ``scores``;
    classes: ``scores`` [C].
    """

    path: str
    image: np.ndarray
    tasks: dict[str, Predictions]


class Session:
    """Runs a file exported by ``icconv_mm.apis.export`` on images.

    Args:
        file: ``.onnx``, ``.ort`` or ``.xml``.
        threads: CPU threads; None for the default of the runtime, which is all cores: give each process of a pool
            its share.

    A session pickles as its file and arguments, and opens the file again in another process. ``metadata`` are those of
    the file, ``tasks`` their part about each task, by name; ``run`` maps arrays by input name to arrays by output name.

    Raises:
        RuntimeInputError: The file cannot be used; the message says why.

    Example::

        session = Session('network.onnx')
        boxes = next(session.predict('street.jpg')).tasks['']['boxes']
    """

    def __init__(self, file: str | Path, threads: int | None = None):
        self.metadata, self.run = open_file(file, threads)
        self.file, self.threads = str(file), threads
        self.tasks = {task['name']: task for task in self.metadata['tasks']}

    def __reduce__(self) -> tuple:
        if not hasattr(self, 'threads'):
            raise RuntimeInputError(f'{self.file}: a session of another runtime has no file to open in another process')
        return type(self), (self.file, self.threads)

    @classmethod
    def of(cls, metadata: Mapping[str, Any], run: RunFunction, file: str) -> 'Session':
        """Returns a session of another runtime: ``run`` maps arrays by input name to arrays by output name."""
        check_metadata(metadata, file)
        session = cls.__new__(cls)
        session.metadata, session.run, session.file = metadata, run, file
        session.tasks = {task['name']: task for task in metadata['tasks']}
        return session

    def predict(self, images: Any, batch_size: int = 1) -> Iterator[Prediction]:
        """Yields the predictions, image by image.

        Args:
            images: A file, a folder, a video, an array ``[H, W, 3]`` (uint8, BGR), or several of them.
            batch_size: Images in a batch.

        Raises:
            RuntimeInputError: An image, or the network's output for it, cannot be used.
        """
        for batch in self._batches(images, batch_size):
            if isinstance(batch, tuple):
                raise batch[1]
            yield from self._found(batch)

    def try_predict(self, images: Any, batch_size: int = 1) -> Iterator[tuple[str, Prediction | RuntimeInputError]]:
        """Like :meth:`predict`, but yields the path and the prediction or, if the image fails, the error.

        Raises:
            RuntimeInputError: An argument has the wrong type.
        """
        for batch in self._batches(images, batch_size):
            if isinstance(batch, tuple):
                yield batch
                continue
            found = self._attempt(batch)
            if isinstance(found, RuntimeInputError):  # run each image alone to find the failing one
                found = [self._attempt([each]) for each in batch] if len(batch) > 1 else [found]
                found = [each[0] if isinstance(each, list) else each for each in found]
            yield from zip((sample.path for sample in batch), found)

    def _batches(self, images: Any, batch_size: int) -> Iterator[list[Sample] | tuple[str, RuntimeInputError]]:
        """Yields batches, and between them the path and the error of each image that cannot be used."""
        is_size = isinstance(batch_size, int) and not isinstance(batch_size, bool)
        if not is_size or not 1 <= batch_size <= limits.MAX_BATCH:
            raise RuntimeInputError(
                f'batch_size must be a whole number from 1 to {limits.MAX_BATCH}, got {batch_size!r}'
            )
        for has_failed, group in groupby(self._prepared(images), lambda each: isinstance(each, tuple)):
            if has_failed:
                yield from group
            else:
                yield from batches(group, batch_size, self.metadata['batch'])

    def _prepared(self, images: Any) -> Iterator[Sample | tuple[str, RuntimeInputError]]:
        for path, image in try_read_all(images):
            try:
                if isinstance(image, RuntimeInputError):
                    raise image
                yield preprocess(Sample(path, image), self.metadata['steps'])
            except RuntimeInputError as error:
                yield path, error

    def _attempt(self, batch: Sequence[Sample]) -> list[Prediction] | RuntimeInputError:
        try:
            return self._found(batch)
        except RuntimeInputError as error:
            return error

    def _found(self, batch: Sequence[Sample]) -> list[Prediction]:
        """Returns the predictions for a batch."""
        with refusing(batch[0].path):
            arrays = arrays_of(batch, self.metadata['batch'])
        sizes = ', '.join(f'{name} {list(array.shape)}' for name, array in arrays.items())
        with refusing(f'{self.file}: does not run on {batch[0].path} ({sizes})'):
            outputs = dict(self.run(arrays))
        found: list[dict[str, Predictions]] = [{} for _ in batch]
        with refusing(f'{self.file}: on {batch[0].path}'), np.errstate(all='ignore'):
            for name, task in self.tasks.items():
                own = check_outputs(task, outputs, len(batch), batch[0].input_size)
                for row, sample in enumerate(batch):
                    found[row][name] = decode(task, own, row, sample)
        return [Prediction(sample.path, sample.image, tasks) for sample, tasks in zip(batch, found)]
