"""Loads a network from its file, exported or a checkpoint, and predicts images with it: :func:`icconv_mm.load`.

The import needs torch alone; OpenMMLab or the runtime is imported with the file.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from icconv_mm.arguments import check_scores
from icconv_mm.errors import ArgumentError, MissingLibraryError, naming
from icconv_mm.files import is_exported, require_file
from icconv_mm.run_folder import checkpoint_of
from icconv_mm.versions import is_installed

if TYPE_CHECKING:
    from supervision import Detections

_FIRST = ('instance', 'detection', 'pose', 'semantic', 'classification')  # of several tasks, whose arrays a result has


@dataclass(frozen=True)
class Result:
    """The predictions of a network for an image; arrays that its tasks do not have are None.

    Attributes:
        path: The image file; ``'array'`` for pixels.
        image: [H, W, 3], uint8, BGR.
        tasks: The predictions of each task by name, as :class:`icconv_mm_runtime.Prediction` has them; '' is the name
            of a single task.
        descriptions: Kind, class names and colours of each task, as in the metadata of an exported file.
        score_thr: Lowest score of the objects and people below; None for the best of each class on the validation
            images, else 0.3; 0 for all.

    ``boxes``, ``scores``, ``labels``, ``names`` and ``masks`` are those of one task: of objects, else of people. The
    others of a network for several tasks are in ``one(name)``. ``tasks`` and :meth:`to_coco` have all of any score.
    """

    path: str
    image: np.ndarray
    tasks: Mapping[str, Mapping[str, np.ndarray]]
    descriptions: Mapping[str, Mapping[str, Any]]
    score_thr: float | None = None

    def one(self, name: str) -> 'Result':
        """Returns the result of one task alone."""
        own = {name: self.tasks[name]}, {name: self.descriptions[name]}
        return Result(self.path, self.image, *own, self.score_thr)

    @property
    def boxes(self) -> np.ndarray | None:
        """Corners x1, y1, x2, y2 in pixels, [n, 4]; the best score first."""
        return self._main.get('boxes')

    @property
    def scores(self) -> np.ndarray | None:
        """Scores of objects or people, [n]."""
        return None if self._kind == 'classification' else self._main.get('scores')

    @property
    def labels(self) -> np.ndarray | None:
        """Classes of objects, [n], as indices of ``classes``."""
        return self._main.get('labels')

    @property
    def names(self) -> tuple[str, ...]:
        """Class name of each object or person, n; none of segmentation maps and of classes of whole images."""
        count = 0 if self.scores is None else len(self.scores)
        labels = self._main.get('labels', np.zeros(count, int))
        return tuple(self.classes[label] if label < len(self.classes) else str(label) for label in labels.tolist())

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names of the network's task."""
        return tuple(self.descriptions[self._first]['classes'])

    @property
    def masks(self) -> np.ndarray | None:
        """Masks of objects, [n, H, W], bool."""
        return self._main.get('masks')

    @property
    def seg_map(self) -> np.ndarray | None:
        """The class of each pixel, [H, W]."""
        return self._any('seg_map')

    @property
    def keypoints(self) -> np.ndarray | None:
        """Keypoints of people, [n, K, 3]: x, y in pixels, score."""
        points, scores = self._any('keypoints'), self._any('keypoint_scores')
        return None if points is None else np.concatenate([points, scores[..., None]], -1)

    @property
    def keypoint_names(self) -> tuple[str, ...] | None:
        """Names of the K keypoints."""
        kinds = {task['kind']: task for task in self.descriptions.values()}
        return tuple(kinds['pose'].get('keypoints') or ()) if 'pose' in kinds else None

    @property
    def probs(self) -> np.ndarray | None:
        """Score of each class for the whole image, [C]."""
        kinds = {task['kind']: name for name, task in self.descriptions.items()}
        return self.tasks[kinds['classification']]['scores'] if 'classification' in kinds else None

    def plot(self, score_thr: float | None = None) -> np.ndarray:
        """Returns the image with its predictions, [h, w, 3], BGR, at most 4096 pixels per side.

        Args:
            score_thr: Lowest score that is drawn; by default the result's own.
        """
        from icconv_mm_runtime.drawing import draw, drawing_of, joined

        score_thr = self.score_thr if score_thr is None else score_thr
        parts = [drawing_of(self.descriptions[name], found, score_thr) for name, found in self.tasks.items()]
        whole = joined(parts)
        whole.size = self.image.shape[:2]
        return draw(self.image[..., ::-1], whole)[..., ::-1]

    def to_coco(self, image_id: int = 1, category_ids: Sequence[int] | None = None) -> list[dict]:
        """Returns all predictions, of any score, as entries of COCO results.

        Args:
            image_id: Id of the image.
            category_ids: The category of each label; by default the label plus 1.
        """
        from icconv_mm_runtime.coco import coco_records

        return [
            record
            for name, found in self.tasks.items()
            for record in coco_records(self.descriptions[name], found, image_id, 0.0, category_ids)
        ]

    def to_supervision(self) -> 'Detections':
        """Returns the objects as detections of the library supervision.

        Raises:
            MissingLibraryError: The library is not installed.
            ArgumentError: The network has no task with boxes.
        """
        if not is_installed('supervision'):
            raise MissingLibraryError('to_supervision needs supervision: pip install supervision')
        if self.boxes is None:
            raise ArgumentError('result', f'a network for {self._kind} has no boxes')
        from supervision import Detections

        names = {'class_name': np.array(self.names)} if self.classes else {}
        return Detections(self.boxes, self.masks, self.scores, self.labels, data=names)

    @property
    def _first(self) -> str:
        return min(self.tasks, key=lambda name: _FIRST.index(self.descriptions[name]['kind']))

    @property
    def _kind(self) -> str:
        return self.descriptions[self._first]['kind']

    @property
    def _main(self) -> Mapping[str, np.ndarray]:
        return self._shown(self._first)

    def _shown(self, name: str) -> Mapping[str, np.ndarray]:
        """Returns the predictions of a task whose scores are high enough."""
        from icconv_mm_runtime.thresholds import shown

        found, task = self.tasks[name], self.descriptions[name]
        if task['kind'] in ('semantic', 'classification'):
            return found
        kept = shown(task, found, self.score_thr)
        return {key: values[kept] for key, values in found.items()}

    def _any(self, name: str) -> np.ndarray | None:
        return next((self._shown(task)[name] for task, found in self.tasks.items() if name in found), None)


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
        results = [Result(*found, self.descriptions, score_thr) for found in self._predict(given, batch_size)]
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

    def predict(images: Iterable[Path | np.ndarray], batch_size: int) -> Iterator[tuple]:
        pairs = [('array', each) if isinstance(each, np.ndarray) else each for each in images]
        with naming(str(file), RuntimeInputError):
            for found in session.predict(pairs, batch_size):
                yield found.path, found.image, found.tasks

    return session.tasks, predict


def _open_checkpoint(file: Path, config: str | Path | None, device: str | None) -> tuple[Mapping, Callable]:
    """Returns the tasks of a checkpoint, and the function that predicts."""
    from icconv_mm.app.prediction.predict import Predictor
    from icconv_mm.app.runs.config import config_beside
    from icconv_mm.app.runs.images import InputImage

    predictor = Predictor(config_beside(file) if config is None else config, str(file), device)
    parts = predictor.task.parts(predictor.dataset_meta)

    def predict(images: Iterable[Path | np.ndarray], batch_size: int) -> Iterator[tuple]:
        inputs = [InputImage(Path('array'), each) if isinstance(each, np.ndarray) else each for each in images]
        for given, (path, sample) in zip(inputs, predictor.predict(inputs, batch_size), strict=True):
            image = predictor.pixels(given)
            yield path, image, predictor.arrays(sample, image.shape[:2])

    return {name: {'name': name, **own.described(meta)} for name, (own, meta) in parts.items()}, predict
