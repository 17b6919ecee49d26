"""Runs an exported file on images."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm_runtime import limits
from icconv_mm_runtime.batches import in_batches
from icconv_mm_runtime.benchmark import Benchmark, time_steps
from icconv_mm_runtime.engines import RunFunction, open_file
from icconv_mm_runtime.errors import RuntimeInputError, refusing
from icconv_mm_runtime.images import Sample, arrays_of, batch_key, preprocess, read_all, try_read_all
from icconv_mm_runtime.metadata import check_metadata
from icconv_mm_runtime.outputs import check_outputs, decode
from icconv_mm_runtime.results import Arrays, Result
from icconv_mm_runtime.tiling import JOINED, join_tiles, tiles_of

_TIMED = 16  # images that a benchmark keeps in memory


def check_count(name: str, value: Any, most: int) -> None:
    """Raises RuntimeInputError unless an argument is a whole number from 1 to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise RuntimeInputError(f'{name} must be a whole number from 1 to {most}, got {value!r}')


class Session:
    """Runs a file exported by ``icconv_mm.apis.export`` on images.

    Args:
        file: ``.onnx``, ``.ort`` or ``.xml``.
        threads: CPU threads; None for the default of the runtime, which is all cores: give each process of a pool
            its share.
        device: 'cpu', 'cuda', 'cuda:1', 'tensorrt' or another provider of ONNX Runtime; 'openvino' or a device of it,
            such as 'openvino:GPU'. None for what the runtime prefers, or falls back to.

    A session pickles as its file and arguments, and opens the file again in another process. ``metadata`` are those of
    the file, ``tasks`` their part about each task, by name; ``run`` maps arrays by input name to arrays by output name.

    Raises:
        RuntimeInputError: The file or the device cannot be used; the message says why.

    Example::

        session = Session('network.onnx')
        boxes = next(session.predict('street.jpg')).tasks['']['boxes']
    """

    def __init__(self, file: str | Path, threads: int | None = None, device: str | None = None):
        self.metadata, self.run = open_file(file, threads, device)
        self.file, self.threads, self.device = str(file), threads, device
        self.tasks = {task['name']: task for task in self.metadata['tasks']}

    def __reduce__(self) -> tuple:
        if not hasattr(self, 'threads'):
            raise RuntimeInputError(f'{self.file}: a session of another runtime has no file to open in another process')
        return type(self), (self.file, self.threads, self.device)

    @classmethod
    def of(cls, metadata: Mapping[str, Any], run: RunFunction, file: str) -> 'Session':
        """Returns a session of another runtime: ``run`` maps arrays by input name to arrays by output name."""
        check_metadata(metadata, file)
        session = cls.__new__(cls)
        session.metadata, session.run, session.file = metadata, run, file
        session.tasks = {task['name']: task for task in metadata['tasks']}
        return session

    def predict(self, images: Any, batch_size: int = 1, tile: int | None = None) -> Iterator[Result]:
        """Yields the predictions, image by image.

        Args:
            images: A file, a folder, a video, a stream (a URL that OpenCV opens), the number of a camera as a text, an
                array ``[H, W, 3]`` (uint8, BGR), or several of them; among several also pairs of a name and an array
                or the bytes of an image file.
            batch_size: Images in a batch. Images of one size share a batch although others are between them.
            tile: Cuts images into overlapping squares of so many pixels, for small objects in large images: boxes and
                segmentation maps.

        Raises:
            RuntimeInputError: An image, or the network's output for it, cannot be used.
        """
        for _, result in self._results(images, batch_size, tile, retries=False):
            if isinstance(result, RuntimeInputError):
                raise result
            yield result

    def try_predict(
        self, images: Any, batch_size: int = 1, tile: int | None = None
    ) -> Iterator[tuple[str, Result | RuntimeInputError]]:
        """Like :meth:`predict`, but yields the path and the prediction or, if the image fails, the error.

        Raises:
            RuntimeInputError: An argument has the wrong type.
        """
        return self._results(images, batch_size, tile, retries=True)

    def benchmark(self, images: Any = None, batch_size: int = 1, runs: int = 50) -> Benchmark:
        """Times preprocessing, network and postprocessing.

        Args:
            images: As for :meth:`predict`; the first 16 are taken in turn. By default 640x480 random pixels.
            batch_size: How often each image is in its batch.
            runs: Batches that are timed, after a tenth as many that are not.

        Raises:
            RuntimeInputError: An argument or an image cannot be used.
        """
        batch_size = self._batch_size(batch_size)
        check_count('runs', runs, limits.MAX_RUNS)
        if images is None:
            images = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
        pixels = [image for _, image in islice(read_all(images), _TIMED)]
        if not pixels:
            raise RuntimeInputError('images: there are none')

        def prepared(image: np.ndarray) -> tuple[list[Sample], dict[str, np.ndarray]]:
            samples = [preprocess(Sample('array', image), self.metadata['steps']) for _ in range(batch_size)]
            return samples, self._arrays(samples)

        steps = prepared, lambda given: (given[0], self._outputs(*given)), lambda given: self._decoded(*given)
        return time_steps(steps, pixels, batch_size, runs)

    def _results(
        self, images: Any, batch_size: int, tile: int | None, retries: bool
    ) -> Iterator[tuple[str, Result | RuntimeInputError]]:
        """Yields each image's path, and its prediction or error, in order."""
        batch_size = self._batch_size(batch_size)
        if tile is not None:
            check_count('tile', tile, limits.MAX_SIDE)
            if any(task['kind'] not in JOINED for task in self.tasks.values()):
                raise RuntimeInputError('tile: only boxes and segmentation maps are put together again')
            for path, image in try_read_all(images):
                try:
                    result = image if isinstance(image, Exception) else self._of_tiles(path, image, tile, batch_size)
                except RuntimeInputError as error:
                    result = error
                yield path, result
            return
        yield from in_batches(self._read(images), self.run_batch, batch_size, RuntimeInputError, retries)

    def _read(self, images: Any) -> Iterator[tuple[str, Any, object]]:
        for path, image in try_read_all(images):
            try:
                read = (image, None) if isinstance(image, Exception) else self.read(path, image)
            except RuntimeInputError as error:
                read = error, None
            yield path, *read

    def read(self, path: str, image: np.ndarray) -> tuple[Sample, object]:
        """Returns an image ready for :meth:`run_batch`, and a key that all images of a batch must share.

        Args:
            path: Its name.
            image: [H, W, 3], uint8, BGR.

        Raises:
            RuntimeInputError: It cannot be used.
        """
        sample = preprocess(Sample(path, image), self.metadata['steps'])
        return sample, batch_key(sample, self.metadata['batch'])

    def _batch_size(self, given: int) -> int:
        """Returns the size of batches: the given one, but for a file of a fixed batch."""
        check_count('batch_size', given, limits.MAX_BATCH)
        return self.metadata['batch'].get('count') or given

    def _of_tiles(self, path: str, image: np.ndarray, tile: int, batch_size: int) -> Result:
        samples = (self.read(path, piece)[0] for piece in tiles_of(image, tile))
        batches = iter(lambda: list(islice(samples, batch_size)), [])
        parts = [part.tasks for batch in batches for part in self.run_batch(batch)]
        return Result(path, image, join_tiles(self.tasks, parts, image.shape[:2], tile), self.tasks)

    def run_batch(self, batch: Sequence[Sample]) -> list[Result]:
        """Returns the results of images of one key (:meth:`read`).

        Raises:
            RuntimeInputError: The network's output cannot be used.
        """
        size = self._batch_size(len(batch))
        parts = (batch[start : start + size] for start in range(0, len(batch), size))
        return [result for part in parts for result in self._decoded(part, self._outputs(part, self._arrays(part)))]

    def _arrays(self, batch: Sequence[Sample]) -> dict[str, np.ndarray]:
        with refusing(batch[0].path):
            return arrays_of(batch, self.metadata['batch'])

    def _outputs(self, batch: Sequence[Sample], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sizes = ', '.join(f'{name} {list(array.shape)}' for name, array in arrays.items())
        with refusing(f'{self.file}: does not run on {batch[0].path} ({sizes})'):
            return dict(self.run(arrays))

    def _decoded(self, batch: Sequence[Sample], outputs: Mapping[str, np.ndarray]) -> list[Result]:
        arrays: list[dict[str, Arrays]] = [{} for _ in batch]
        with refusing(f'{self.file}: on {batch[0].path}'), np.errstate(all='ignore'):
            for name, task in self.tasks.items():
                decoded = check_outputs(task, outputs, len(batch), batch[0].input_shape)
                for row, sample in enumerate(batch):
                    arrays[row][name] = decode(task, decoded, row, sample)
        return [Result(sample.path, sample.image, tasks, self.tasks) for sample, tasks in zip(batch, arrays)]
