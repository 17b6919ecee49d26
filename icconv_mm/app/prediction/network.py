"""What predicts images, a checkpoint or an exported file, and how images pass through it. Needs no OpenMMLab."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from icconv_mm.app.runs.input_image import InputImage
from icconv_mm.errors import ArgumentError
from icconv_mm_runtime.batches import in_batches
from icconv_mm_runtime.results import Result
from icconv_mm_runtime.tiling import JOINED, join_tiles, tiles_of

GivenImage = str | Path | InputImage
Given = TypeVar('Given', bound=GivenImage)


class Network(Protocol):
    """A network that predicts images.

    Attributes:
        descriptions: Kind, class names and colours of each task by name, as in the metadata of an exported file; '' is
            the name of a single task.
        settings: What its results depend on besides its file.
    """

    descriptions: Mapping[str, Mapping[str, Any]]
    settings: str

    def pixels(self, image: GivenImage, longest: int | None = None) -> np.ndarray:
        """Returns the image [H, W, 3], BGR, that results refer to, reduced to about ``longest`` pixels if given."""

    def read(self, image: GivenImage) -> tuple[Any, object]:
        """Returns an image ready for the network, and a key that the images of a batch share. Threads may call it.

        Raises:
            InputError: It cannot be used.
        """

    def run_batch(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Returns what the network finds in each image of a batch: a data sample, or the result itself."""

    def result(self, image: GivenImage, sample: Any, longest: int | None = None) -> Result:
        """Returns an image and what the network found in it as a result.

        Args:
            image: The image.
            sample: What :meth:`run_batch` returned.
            longest: Longer side of the result's image in pixels, about, if the file is read again: 0 for no image;
                None for all pixels, with masks and maps of the same size.
        """


def predict_each(network: Network, images: Iterable[Given], batch_size: int = 1) -> Iterator[tuple[Given, Any]]:
    """Yields each image and what the network finds in it.

    Raises:
        ImageFileError, InputError: An image cannot be used.
        ArgumentError: The batch size is less than 1.
    """
    for image, sample in try_predict(network, images, batch_size):
        if isinstance(sample, Exception):
            raise sample
        yield image, sample


def try_predict(
    network: Network, images: Iterable[Given], batch_size: int = 1, workers: int = 0
) -> Iterator[tuple[Given, Any]]:
    """Yields the same as :func:`predict_each`, but an exception in place of what the network finds if an image fails.

    Args:
        network: The network.
        images: The images.
        batch_size: Images per forward pass.
        workers: Threads that read images ahead.
    """
    check_batch_size(batch_size)

    def read(image: Given) -> tuple[Given, Any, object]:
        read_image = attempt(network.read, image)
        return (image, read_image, None) if isinstance(read_image, Exception) else (image, *read_image)

    yield from in_batches(ahead(read, images, workers), network.run_batch, batch_size, Exception)


def predict_tiles(network: Network, path: Path, tile: int) -> Result:
    """Returns the result for an image that is cut into overlapping squares of ``tile`` pixels.

    Raises:
        ArgumentError: The predictions of a task cannot be put together.
    """
    from icconv_mm_runtime.drawing import reduced  # needs OpenCV

    check_tiled(network.descriptions)
    parts, image = [], network.pixels(path)
    for pixels in tiles_of(image, tile):
        piece = InputImage(path, pixels)
        (sample,) = network.run_batch([network.read(piece)[0]])
        parts.append(network.result(piece, sample, 0).tasks)
    check_tiled(network.descriptions, any('masks' in arrays for arrays in parts[0].values()))
    shape = image.shape[:2]
    tasks = join_tiles(network.descriptions, parts, shape, tile)
    return Result(str(path), reduced(image)[0], tasks, network.descriptions, shape=shape)


def check_tiled(descriptions: Mapping[str, Mapping[str, Any]], has_masks: bool = False) -> None:
    """Raises ArgumentError unless the predictions of these tasks for tiles can be put together."""
    if has_masks or not {task['kind'] for task in descriptions.values()} <= JOINED.keys():
        raise ArgumentError('tile', 'only boxes and segmentation maps are put together again')


def check_batch_size(batch_size: int) -> None:
    """Raises ArgumentError if a batch has no images."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ArgumentError('batch_size', f'expected 1 or more, got {batch_size}')


def ahead(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yields a function's result for each item, in order: computed ahead by threads, or on demand without workers."""
    if workers < 0:
        raise ArgumentError('workers', f'expected 0 or more, got {workers}')
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns a function's result or its exception: for an unusual image size, libraries can raise any."""
    try:
        return function(*arguments)
    except Exception as error:
        return error
