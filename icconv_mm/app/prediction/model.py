"""Loads a network from its file, exported or a checkpoint, and predicts images with it: :func:`icconv_mm.load`.

The import needs torch alone; OpenMMLab or the runtime is imported with the file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.arguments import check_scores
from icconv_mm.errors import ArgumentError, naming
from icconv_mm.files import is_exported, require_file
from icconv_mm.run_folder import checkpoint_of
from icconv_mm_runtime.results import Result


class LoadedModel:
    """A network that predicts images: call it.

    Attributes:
        file: Its file.
        descriptions: Kind, class names and colours of each task, by name; '' is the name of a single task.
    """

    def __init__(self, file: Path, descriptions: Mapping[str, Mapping[str, Any]], predict: Callable) -> None:
        self.file, self.descriptions, self._predict = file, descriptions, predict

    def __call__(self, images: Any, batch_size: int = 1, score_thr: float | None = None) -> Any:
        """Returns the :class:`Result` of an image, or a list of them.

        Args:
            images: An image file, pixels [H, W, 3] (uint8, BGR), or a sequence of them.
            batch_size: Images per forward pass.
            score_thr: Lowest score of the result's objects and people; by default the best of each class on the
                validation images, else 0.3. 0 for all.

        Raises:
            ArgumentError: The score is none from 0 to 1.
            MissingFileError: An image file does not exist.
            InputError: An image cannot be used.
        """
        check_scores(score_thr=score_thr)
        is_one = isinstance(images, (str, Path, np.ndarray)) or not isinstance(images, Iterable)
        given = [_checked(each) for each in ([images] if is_one else images)]
        results = [replace(result, score_thr=score_thr) for result in self._predict(given, batch_size)]
        return results[0] if is_one else results


def load(file: str | Path, config: str | Path | None = None, device: str | None = None) -> LoadedModel:
    """Loads a network that predicts images.

    Args:
        file: An exported file (.onnx, .ort, .xml), a checkpoint, or the folder of a training, whose best one is taken.
        config: The config of a checkpoint; by default the one that the training wrote beside it, which a log message
            names. A config is a program: take only those that you trust.
        device: Such as ``'cpu'`` or ``'cuda:0'``; by default an accelerator if there is one.

    Raises:
        MissingFileError: A file does not exist.
        ArgumentError: There is no config beside the checkpoint, or several; or one is given with an exported file.
        InputError: A file cannot be used.

    Example::

        model = icconv_mm.load('network.onnx')
        result = model('street.jpg')
        cv2.imwrite('drawn.jpg', result.plot())
    """
    file = Path(checkpoint_of(file))
    if not is_exported(file):
        return LoadedModel(file, *_open_checkpoint(file, config, device))
    if config is not None:
        raise ArgumentError('config', f'{file} is an exported file, which has no config')
    return LoadedModel(file, *_open_exported(file, device))


def _checked(image: Any) -> Path | np.ndarray:
    if isinstance(image, (str, Path)):
        if Path(image).is_dir():
            raise ArgumentError('images', f'{image} is a folder: give its files')
        require_file(image, 'image')
        return Path(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        got = f'{image.dtype} {list(image.shape)}' if isinstance(image, np.ndarray) else type(image).__name__
        raise ArgumentError('images', f'expected names of files, or uint8 arrays [H, W, 3], got {got}')
    return image


def _open_exported(file: Path, device: str | None) -> tuple[Mapping, Callable]:
    """Returns the tasks of an exported file, and the function that predicts."""
    from icconv_mm_runtime import RuntimeInputError, Session

    with naming(str(file), RuntimeInputError):
        session = Session(file, device=device)

    def predict(images: Iterable[Path | np.ndarray], batch_size: int) -> Iterator[Result]:
        pairs = [('array', each) if isinstance(each, np.ndarray) else each for each in images]
        with naming(str(file), RuntimeInputError):
            yield from session.predict(pairs, batch_size)

    return session.tasks, predict


def _open_checkpoint(file: Path, config: str | Path | None, device: str | None) -> tuple[Mapping, Callable]:
    """Returns the tasks of a checkpoint, and the function that predicts."""
    from icconv_mm.app.prediction.predict import Predictor
    from icconv_mm.app.runs.config import config_beside
    from icconv_mm.app.runs.images import InputImage

    predictor = Predictor(config_beside(file) if config is None else config, str(file), device)
    parts = predictor.task.parts(predictor.dataset_meta)
    descriptions = {name: {'name': name, **own.described(meta)} for name, (own, meta) in parts.items()}

    def predict(images: Iterable[Path | np.ndarray], batch_size: int) -> Iterator[Result]:
        inputs = [InputImage(Path('array'), each) if isinstance(each, np.ndarray) else each for each in images]
        for given, (path, sample) in zip(inputs, predictor.predict(inputs, batch_size), strict=True):
            image = predictor.pixels(given)
            yield Result(path, image, predictor.arrays(sample, image.shape[:2]), descriptions)

    return descriptions, predict
