"""Loads a network from its file, exported or a checkpoint, and predicts images with it: :func:`icconv_mm.load`.

The import needs torch alone; OpenMMLab or the runtime is imported with the file.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from icconv_mm.app.prediction.network import Network, predict_each
from icconv_mm.app.runs.input_image import InputImage
from icconv_mm.arguments import check_scores
from icconv_mm.errors import ArgumentError, naming
from icconv_mm.files import is_exported, require_file
from icconv_mm.run_folder import checkpoint_of
from icconv_mm_runtime.arrays import is_array
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.results import Result


class LoadedModel:
    """A network that predicts images: call it.

    Attributes:
        file: Its file.
        descriptions: Kind, class names and colours of each task, by name; '' is the name of a single task.
    """

    def __init__(self, file: Path, network: Network) -> None:
        self.file, self.descriptions, self._network = file, network.descriptions, network

    def __call__(self, images: Any, batch_size: int = 1, score_thr: float | None = None) -> Result | list[Result]:
        """Returns the :class:`Result` of an image, or a list of them.

        Args:
            images: An image file, or pixels as :func:`icconv_mm_runtime.images.as_array` takes them (arrays are BGR);
                a folder, or a sequence, for a list of results.
            batch_size: Images per forward pass.
            score_thr: Lowest score of the result's objects and people; by default the best of each class on the
                validation images, else 0.3. 0 for all.

        Raises:
            ArgumentError: The score is none from 0 to 1.
            MissingFileError: An image file does not exist.
            InputError: An image cannot be used.
        """
        check_scores(score_thr=score_thr)
        if isinstance(images, (str, Path)) and Path(images).is_dir():
            images = _files_in(Path(images))
        is_one = isinstance(images, (str, Path)) or is_array(images) or not isinstance(images, Iterable)
        given = [_as_input(image) for image in ([images] if is_one else images)]
        samples = predict_each(self._network, given, batch_size)
        results = [replace(self._network.result(*pair), score_thr=score_thr) for pair in samples]
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
    if not is_exported(file) and config is None:
        from icconv_mm.app.runs.config import config_beside

        config = config_beside(file)
    return LoadedModel(file, open_network(file, config, device))


def open_network(file: str | Path, config: Any = None, device: str | None = None, palette: Any = None) -> Network:
    """Returns the network of an exported file, or of a checkpoint with its config.

    Args:
        file: The file.
        config: Of a checkpoint, as for :class:`icconv_mm.apis.Predictor`.
        device: As for :func:`load`.
        palette: Colours of a checkpoint's classes, as for :class:`icconv_mm.apis.Predictor`.

    Raises:
        MissingFileError: A file does not exist.
        ArgumentError: A config or colours are given with an exported file.
        InputError: A file cannot be used.
    """
    if not is_exported(file):
        from icconv_mm.app.prediction.checkpoint import Predictor

        return Predictor(config, str(file), device, palette)
    for name, value, what in (('config', config, 'has no config'), ('palette', palette, 'has its own colours')):
        if value is not None:
            raise ArgumentError(name, f'{file} is an exported file, which {what}')
    from icconv_mm.app.prediction.exported import ExportedNetwork

    require_file(file, 'checkpoint')
    return ExportedNetwork(file, device)


def _files_in(folder: Path) -> list[Path]:
    from icconv_mm_runtime.images import images_among

    files = images_among(folder.iterdir())
    if not files:
        raise ArgumentError('images', f'{folder}: no image in this folder')
    return files


def _as_input(image: Any) -> Path | InputImage:
    if isinstance(image, (str, Path)):
        require_file(image, 'image')
        return Path(image)
    if not is_array(image):
        raise ArgumentError('images', f'expected files, folders or pixels, got {type(image).__name__}')
    from icconv_mm_runtime.images import as_array

    with naming('images', RuntimeInputError):
        return InputImage(Path('array'), as_array(image))
