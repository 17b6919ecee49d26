"""The result of a network for an image: arrays of each task, drawn or as records of COCO. Needs numpy alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from icconv_mm_runtime.arrays import Arrays
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.thresholds import shown

if TYPE_CHECKING:
    from supervision import Detections

Predictions = Arrays  # its former name
_FIRST = ('instance', 'detection', 'pose', 'semantic', 'classification')  # of several tasks, whose arrays a result has


@dataclass(frozen=True)
class Result:
    """The predictions of a network for an image; arrays that its tasks do not have are None.

    Attributes:
        path: The image file; ``'array'`` for pixels.
        image: [H, W, 3], uint8, BGR; reduced if ``shape`` is larger; None for a result that is not drawn.
        tasks: The predictions of each task by name, arrays by name; '' is the name of a single task. Boxes: ``boxes``
            [n, 4], ``scores``, ``labels``, for some ``masks`` [n, H, W]; segmentation maps: ``seg_map`` [H, W]; poses:
            ``keypoints`` [n, K, 2], ``keypoint_scores``, ``scores``; classes: ``scores`` [C].
        descriptions: Kind, class names and colours of each task, as in the metadata of an exported file.
        score_thr: Lowest score of the objects and people below; None for the best of each class on the validation
            images, else 0.3; 0 for all.
        shape: Height and width of the image that boxes and keypoints refer to; by default those of ``image``.

    ``boxes``, ``scores``, ``labels``, ``names`` and ``masks`` are those of one task: of objects, else of people. The
    others of a network for several tasks are in ``one(name)``. ``tasks`` and :meth:`to_coco` have all of any score.
    """

    path: str
    image: np.ndarray | None
    tasks: Mapping[str, Arrays]
    descriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    score_thr: float | None = None
    shape: tuple[int, int] | None = None

    def __repr__(self) -> str:
        """Returns the path and, of each task, the number of what is shown or the best class."""
        return f'Result({self.path!r}: {"; ".join(map(self._in_words, self.tasks)) or "no task"})'

    def _in_words(self, name: str) -> str:
        arrays, task = self.tasks[name], self.descriptions.get(name) or {}
        classes, where = task.get('classes') or (), f'{name}: ' if name else ''
        if 'seg_map' in arrays:
            labels = np.unique(arrays['seg_map']).tolist()
            return where + (', '.join(str(classes[i]) for i in labels if i < len(classes)) or 'no class')
        if task.get('kind') == 'classification':
            best = int(np.argmax(arrays['scores']))
            return f'{where}{classes[best]} {arrays["scores"][best]:.2f}'
        kept = shown(task, arrays, self.score_thr)
        labels = arrays.get('labels', np.zeros(len(arrays['scores']), int))[kept]
        counts = {str(classes[i]): int((labels == i).sum()) for i in np.unique(labels).tolist() if i < len(classes)}
        return where + (', '.join(f'{count} {kind}' for kind, count in counts.items()) or 'nothing')

    def one(self, name: str) -> 'Result':
        """Returns the result of one task alone."""
        parts = {name: self.tasks[name]}, {name: self.descriptions[name]}
        return Result(self.path, self.image, *parts, self.score_thr, self.shape)

    @property
    def ori_shape(self) -> tuple[int, int]:
        """Height and width of the image, by the name that OpenMMLab's data samples have for them."""
        return self.shape or self.image.shape[:2]

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
        parts = [drawing_of(self.descriptions[name], arrays, score_thr) for name, arrays in self.tasks.items()]
        whole = joined(parts)
        whole.shape = self.shape
        return draw(self.image, whole)

    def to_coco(
        self, image_id: int = 1, category_ids: Sequence[int] | None = None, score_thr: float = 0.0
    ) -> list[dict]:
        """Returns the predictions, by default of any score, as entries of COCO results.

        Args:
            image_id: Id of the image.
            category_ids: The category of each label; by default the label plus 1.
            score_thr: Lowest score.
        """
        from icconv_mm_runtime.coco import coco_records

        return [
            record
            for name, arrays in self.tasks.items()
            for record in coco_records(self.descriptions[name], arrays, image_id, score_thr, category_ids)
        ]

    def to_supervision(self) -> 'Detections':
        """Returns the objects as detections of the library supervision.

        Raises:
            RuntimeInputError: The library is not installed, or the network has no task with boxes.
        """
        if self.boxes is None:
            raise RuntimeInputError(f'result: a network for {self._kind} has no boxes')
        try:
            from supervision import Detections
        except ImportError:
            raise RuntimeInputError('to_supervision needs supervision: pip install supervision') from None

        names = {'class_name': np.array(self.names)} if self.classes else {}
        return Detections(self.boxes, self.masks, self.scores, self.labels, data=names)

    @property
    def _first(self) -> str:
        return min(self.tasks, key=lambda name: _FIRST.index(self.descriptions[name]['kind']))

    @property
    def _kind(self) -> str:
        return self.descriptions[self._first]['kind']

    @property
    def _main(self) -> Arrays:
        return self._shown(self._first)

    def _shown(self, name: str) -> Arrays:
        """Returns the predictions of a task whose scores are high enough."""
        arrays, task = self.tasks[name], self.descriptions[name]
        if task['kind'] in ('semantic', 'classification'):
            return arrays
        kept = shown(task, arrays, self.score_thr)
        return {key: values[kept] for key, values in arrays.items()}

    def _any(self, name: str) -> np.ndarray | None:
        return next((self._shown(task)[name] for task, arrays in self.tasks.items() if name in arrays), None)


Prediction = Result  # its former name


def __getattr__(name: str) -> Any:
    """Imports the decoder of outputs, which was here in version 0.1.0."""
    if name != 'decode':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from icconv_mm_runtime.outputs import decode

    return decode
