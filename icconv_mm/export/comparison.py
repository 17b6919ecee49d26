"""How far the results of a file are from those of the model."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData

from icconv_mm.errors import InputError
from icconv_mm.tasks.adapter import TaskAdapter

# The largest differences that a file may have: pixels, scores, and shares of pixels.
LIMITS = {'boxes': 1e-2, 'keypoints': 1e-2, 'scores': 1e-5, 'masks': 1e-5, 'seg_map': 1e-5, 'missing': 0}
_SAME = 1.0  # pixels, beyond which boxes are not the same


class Differences:
    """Collects the largest differences.

    Args:
        tasks: Descriptions of the tasks, by name.
        adapters: The adapter of each.

    Attributes:
        largest: By kind, which is one of :data:`LIMITS`; ``missing`` are boxes or people that only one of the two has.
        ties: Images whose people differ for a rounding alone.
    """

    def __init__(self, tasks: Mapping[str, Mapping[str, Any]], adapters: Mapping[str, TaskAdapter]):
        self.tasks = tasks
        self.adapters = adapters
        self.largest: dict[str, float] = {}
        self.ties: set[str] = set()
        self._where: dict[str, str] = {}

    def add(
        self,
        path: str,
        found: Mapping[str, Mapping[str, np.ndarray]],
        sample: Any,
        is_tie: Callable[[str, str], bool],
    ) -> None:
        """Compare what the file found in an image with the sample of the model.

        Args:
            path: The image.
            found: Of each task.
            sample: Of the model.
            is_tie: Whether the people that a task found in an image differ for a rounding alone.
        """
        for name, task in self.tasks.items():
            own = sample.get(name) if name else sample
            known = self.adapters[name].predictions(own)
            if most := task.get('most'):  # a file gives so many at most, the best ones
                known = {key: values[:most] for key, values in known.items()}
            values = compared(task, found[name], known, own)
            if task.get('grouping') and not is_close(values) and is_tie(path, name):
                self.ties.add(path)
                continue
            for kind, value in values.items():
                if kind not in self.largest or not value <= self.largest[kind]:
                    self.largest[kind] = float(value)
                    self._where[kind] = f'{path}{f" ({name})" if name else ""}'

    def require_small(self) -> None:
        """Raise InputError if a difference is over its limit; it names the one that is furthest over."""
        over = {
            kind: value / (LIMITS[kind] or 1e-9) for kind, value in self.largest.items() if not value <= LIMITS[kind]
        }
        if over:
            kind = max(over, key=over.get)
            raise InputError(
                f'the results of the file differ from those of the model: {kind} by {self.largest[kind]:.3g} '
                f'(limit {LIMITS[kind]:g}) on {self._where[kind]}; nothing is written'
            )


def compared(task: Mapping[str, Any], found: Mapping, known: Mapping, sample: Any = None) -> dict[str, float]:
    """Differences by kind of what a file and a model found for a task; segmentation maps need the model's sample."""
    return _COMPARED[task['kind']](task, found, known, sample)


def is_close(values: Mapping[str, float]) -> bool:
    """Whether all differences are within their limits."""
    return all(value <= LIMITS[kind] for kind, value in values.items())


def _objects(task: Mapping[str, Any], found: Mapping, known: Mapping, sample: Any) -> dict[str, float]:
    """Boxes or people of equal label and score stand for each other; nearest first."""
    place = 'keypoints' if 'keypoints' in found else 'boxes'
    pairs, missing = _matched(task, found, known, place)
    result = {'missing': missing, 'scores': 0.0, place: 0.0}
    for own, other in pairs:
        for name in {'scores', 'keypoint_scores', place} & found.keys():
            kind = place if name == place else 'scores'
            difference = np.abs(found[name][own] - known[name][other]).max()
            result[kind] = max(result[kind], float(difference))
    if 'masks' in found:
        wrong = sum(int((found['masks'][own] != known['masks'][other]).sum()) for own, other in pairs)
        result['masks'] = wrong / max(sum(found['masks'][own].size for own, _ in pairs), 1)
    return result


def _matched(task: Mapping[str, Any], found: Mapping, known: Mapping, place: str) -> tuple:
    """Pairs of what belongs together, and how many are left over that no tie explains.

    What scores as the last of a full list, or as the threshold, may be another one of the same score, or none.
    """
    scores, places, labels = known['scores'], known[place], known.get('labels')
    pairs, left = [], list(range(len(scores)))
    for i, own in enumerate(found[place]):
        near = [j for j in left if abs(float(found['scores'][i] - scores[j])) <= LIMITS['scores']]
        near = [j for j in near if labels is None or found['labels'][i] == labels[j]]
        near = [j for j in near if np.abs(own - places[j]).max() < _SAME]
        if near:
            best = min(near, key=lambda j: float(np.abs(own - places[j]).max()))
            left.remove(best)
            pairs.append((i, best))
    lonely = set(range(len(found[place]))) - {i for i, _ in pairs}
    ends = [task.get('least', np.inf)]  # the threshold
    if len(scores) >= task.get('most', np.inf):
        ends.append(min(float(score) for score in (*found['scores'], *scores)))
    alone = [*(found['scores'][i] for i in lonely), *(scores[j] for j in left)]
    return pairs, sum(all(abs(score - end) > LIMITS['scores'] for end in ends) for score in alone)


def _seg_map(task: Mapping[str, Any], found: Mapping, known: Mapping, sample: Any) -> dict[str, float]:
    """Pixels whose two classes score the same are ties: either is right."""
    own, labels = (torch.from_numpy(each['seg_map'].astype(np.int64)) for each in (found, known))
    wrong = own != labels
    logits = sample.seg_logits.data.cpu()[:, wrong]
    if len(logits) == 1:  # of one class against the rest
        return {'seg_map': float(wrong.float().mean())}
    scores = logits.softmax(0)
    apart = scores.gather(0, labels[wrong][None]) - scores.gather(0, own[wrong][None])
    return {'seg_map': float((apart > LIMITS['scores']).sum() / wrong.numel())}


def _classes(task: Mapping[str, Any], found: Mapping, known: Mapping, sample: Any) -> dict[str, float]:
    return {'scores': float(np.abs(found['scores'] - known['scores']).max())}


_COMPARED = {
    'detection': _objects,
    'instance': _objects,
    'semantic': _seg_map,
    'pose': _objects,
    'classification': _classes,
}


# --- what a file found in the place of what the model found


def put_into(sample: Any, task: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> None:
    """Set the predictions of a sample to what the file found, so that the library's metric evaluates them."""
    kind = task['kind']
    if kind == 'classification':
        scores = torch.from_numpy(found['scores'])
        sample.set_pred_score(scores).set_pred_label(scores.argmax())
    elif kind == 'semantic':
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(found['seg_map'].astype(np.int64))[None])
    elif kind == 'pose':
        names = {'keypoints': 'keypoints', 'keypoint_scores': 'keypoint_scores', 'bbox_scores': 'scores'}
        sample.pred_instances = InstanceData(**{name: found[own] for name, own in names.items()})
    else:
        names = {'bboxes': 'boxes', 'scores': 'scores', 'labels': 'labels', 'masks': 'masks'}
        tensors = {name: torch.from_numpy(found[own]) for name, own in names.items() if own in found}
        sample.pred_instances = InstanceData(**tensors)
