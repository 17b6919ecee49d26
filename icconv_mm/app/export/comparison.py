"""Measures the differences between the predictions of an exported file and of its model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.errors import InputError

# Largest allowed differences: pixels, scores, and fractions of pixels or of all boxes and people.
LIMITS = {'boxes': 1e-2, 'keypoints': 1e-2, 'scores': 1e-5, 'masks': 1e-5, 'seg_map': 1e-5, 'missing': 0}
# The same of a file whose layers compute in float16: a rounding may decide which of two equal boxes is suppressed.
HALF_LIMITS = {'boxes': 0.1, 'keypoints': 0.1, 'scores': 5e-3, 'masks': 1e-3, 'seg_map': 1e-5, 'missing': 0.02}
_SAME = 1.0  # pixels; boxes further apart are different boxes


class Differences:
    """Collects the largest differences over images.

    Args:
        tasks: Descriptions of the tasks, by name.
        adapters: The adapter of each task.
        limits: The largest allowed differences, by kind.

    Attributes:
        largest: By kind, one of :data:`LIMITS`; ``missing`` is the number of boxes or people, on all images, that only
            one of the two predicts.
        ties: Images whose people differ by rounding alone.
    """

    def __init__(
        self,
        tasks: Mapping[str, Mapping[str, Any]],
        adapters: Mapping[str, TaskAdapter],
        limits: Mapping[str, float] = LIMITS,
    ):
        self.tasks = tasks
        self.adapters = adapters
        self.limits = limits
        self.largest: dict[str, float] = {}
        self.ties: set[str] = set()
        self._where: dict[str, str] = {}
        self._objects = 0  # boxes and people of the model and of the file

    def add(
        self,
        path: str,
        exported: Mapping[str, Mapping[str, np.ndarray]],
        sample: Any,
        is_tie: Callable[[str, str], bool],
        alone: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        """Compares the file's predictions for an image, by task, with the model's data sample.

        ``is_tie(path, task)`` returns whether a task's people in an image differ by rounding alone. ``alone`` are the
        file's predictions for the same image outside of a batch, which are compared as well.
        """
        for name, task in self.tasks.items():
            sample_of_task = sample.get(name) if name else sample
            expected = self.adapters[name].predictions(sample_of_task)
            if most := task.get('most'):  # the file returns the best ones, at most this many
                expected = {key: values[:most] for key, values in expected.items()}
            where = f'{path}{f" ({name})" if name else ""}'
            references = {where: expected, **({} if alone is None else {f'{where}, in a batch and alone': alone[name]})}
            for where, reference in references.items():
                values = compared(task, exported[name], reference, sample_of_task, self.limits)
                if task.get('grouping') and not is_close(values, self.limits) and is_tie(path, name):
                    self.ties.add(path)
                    continue
                if 'missing' in values:
                    self._objects += len(reference['scores']) + len(exported[name]['scores'])
                    values['missing'] += self.largest.get('missing', 0) if values['missing'] else 0
                for kind, value in values.items():
                    if kind not in self.largest or not value <= self.largest[kind]:
                        self.largest[kind] = float(value)
                        self._where[kind] = where

    def require_small(self) -> None:
        """Raises InputError if a difference exceeds its limit; the message names the one that exceeds it most."""
        limits = dict(self.limits)
        if limits.get('missing'):  # two, if one takes the place of another
            limits['missing'] = max(2, limits['missing'] * self._objects)
        over = {
            kind: value / (limits[kind] or 1e-9) for kind, value in self.largest.items() if not value <= limits[kind]
        }
        if over:
            kind = max(over, key=over.get)
            raise InputError(
                f'the results of the file differ from those of the model: {kind} by {self.largest[kind]:.3g} '
                f'(limit {limits[kind]:g}) on {self._where[kind]}; nothing is written'
            )


def compared(
    task: Mapping[str, Any],
    exported: Mapping,
    expected: Mapping,
    sample: Any = None,
    limits: Mapping[str, float] = LIMITS,
) -> dict[str, float]:
    """Returns the differences of a file's and a model's predictions for a task, by kind; semantic needs ``sample``."""
    return _COMPARED[task['kind']](task, exported, expected, sample, limits)


def is_close(values: Mapping[str, float], limits: Mapping[str, float] = LIMITS) -> bool:
    """Returns whether all differences are within their limits."""
    return all(value <= limits[kind] for kind, value in values.items())


def _objects(
    task: Mapping[str, Any], exported: Mapping, expected: Mapping, sample: Any, limits: Mapping[str, float]
) -> dict[str, float]:
    """Compares boxes or people, paired by equal label and score, nearest first."""
    field = 'keypoints' if 'keypoints' in exported else 'boxes'
    pairs, missing = _matched(task, exported, expected, field, limits)
    result = {'missing': missing, 'scores': 0.0, field: 0.0}
    for index, other in pairs:
        for name in {'scores', 'keypoint_scores', field} & exported.keys():
            kind = field if name == field else 'scores'
            difference = np.abs(exported[name][index] - expected[name][other]).max()
            result[kind] = max(result[kind], float(difference))
    if 'masks' in exported:
        wrong = sum(int((exported['masks'][index] != expected['masks'][other]).sum()) for index, other in pairs)
        result['masks'] = wrong / max(sum(exported['masks'][index].size for index, _ in pairs), 1)
    return result


def _matched(
    task: Mapping[str, Any], exported: Mapping, expected: Mapping, field: str, limits: Mapping[str, float]
) -> tuple:
    """Returns the pairs of equal predictions, and the number of the others that no tie explains.

    A prediction whose score equals the last of a full list, or the threshold, may be replaced by another, or by none.
    """
    scores, positions, labels = expected['scores'], expected[field], expected.get('labels')
    pairs, left = [], list(range(len(scores)))
    for i, position in enumerate(exported[field]):
        near = [j for j in left if abs(float(exported['scores'][i] - scores[j])) <= limits['scores']]
        near = [j for j in near if labels is None or exported['labels'][i] == labels[j]]
        near = [j for j in near if np.abs(position - positions[j]).max() < _SAME]
        if near:
            best = min(near, key=lambda j: float(np.abs(position - positions[j]).max()))
            left.remove(best)
            pairs.append((i, best))
    lonely = set(range(len(exported[field]))) - {i for i, _ in pairs}
    ends = [task.get('least', np.inf)]  # the score threshold
    if len(scores) >= task.get('most', np.inf):
        ends.append(min(float(score) for score in (*exported['scores'], *scores)))
    alone = [*(exported['scores'][i] for i in lonely), *(scores[j] for j in left)]
    return pairs, sum(all(abs(score - end) > limits['scores'] for end in ends) for score in alone)


def _seg_map(
    task: Mapping[str, Any], exported: Mapping, expected: Mapping, sample: Any, limits: Mapping[str, float]
) -> dict[str, float]:
    """Returns the fraction of different pixels, without ties: pixels whose two classes have equal scores."""
    exported_labels, labels = (torch.from_numpy(arrays['seg_map'].astype(np.int64)) for arrays in (exported, expected))
    wrong = exported_labels != labels
    logits = sample.seg_logits.data.cpu()[:, wrong]
    if len(logits) == 1:  # one class against the background
        return {'seg_map': float(wrong.float().mean())}
    scores = logits.softmax(0)
    apart = scores.gather(0, labels[wrong][None]) - scores.gather(0, exported_labels[wrong][None])
    return {'seg_map': float((apart > limits['scores']).sum() / wrong.numel())}


_COMPARED = {
    'detection': _objects,
    'instance': _objects,
    'semantic': _seg_map,
    'pose': _objects,
    'classification': lambda _, exported, expected, *__: {
        'scores': float(np.abs(exported['scores'] - expected['scores']).max())
    },
}


# --- a file's predictions in place of the model's


def put_into(sample: Any, task: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Sets the predictions of a data sample to the file's, so that the library's metric evaluates them."""
    kind = task['kind']
    if kind == 'classification':
        scores = torch.from_numpy(arrays['scores'])
        sample.set_pred_score(scores).set_pred_label(scores.argmax())
    elif kind == 'semantic':
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(arrays['seg_map'].astype(np.int64))[None])
    elif kind == 'pose':
        names = {'keypoints': 'keypoints', 'keypoint_scores': 'keypoint_scores', 'bbox_scores': 'scores'}
        sample.pred_instances = InstanceData(**{name: arrays[key] for name, key in names.items()})
    else:
        names = {'bboxes': 'boxes', 'scores': 'scores', 'labels': 'labels', 'masks': 'masks'}
        tensors = {name: torch.from_numpy(arrays[key]) for name, key in names.items() if key in arrays}
        sample.pred_instances = InstanceData(**tensors)
