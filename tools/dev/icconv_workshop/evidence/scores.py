"""Average precision by the size of objects, from what the metrics of mmdet and mmpose have written."""

import contextlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SIZES = {'small': (0, 16), 'medium': (16, 40), 'large': (40, 1000)}  # square roots of areas in pixels
CONTEXT = ('beside', 'above')  # classes that only the planted distance tells
TEXTURE = ('stripes', 'checks')
NAMES = {'bbox': 'box', 'segm': 'mask', 'keypoints': 'pose'}


def average_precision(annotations: Path, results: Path, kind: str) -> dict[str, float]:
    """AP in percent over all classes, at an IoU of 0.5, by size, and for two kinds of classes.

    Args:
        annotations: The COCO file of the truth.
        results: A COCO results file.
        kind: 'bbox', 'segm' or 'keypoints'.

    Returns:
        ``AP``, ``AP50``, ``AP_small``, ``AP_medium``, ``AP_large`` and, of boxes and masks that are drawn,
        ``AP_context``, ``AP_texture``. Where there is no such object there is no figure.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        content = json.loads(results.read_text())
        evaluation = COCOeval(truth, truth.loadRes(content) if content else _nothing(truth), kind)
        ranges = {'all': (0, 1e5), **SIZES}
        evaluation.params.areaRng = [[low**2, high**2] for low, high in ranges.values()]
        evaluation.params.areaRngLbl = list(ranges)
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][..., -1]  # [IoUs, recalls, classes, sizes]
    scores = {'AP': precision[..., 0], 'AP50': precision[0, ..., 0]}
    scores |= {f'AP_{name}': precision[..., i] for i, name in enumerate(ranges) if i}
    if kind != 'keypoints':
        names = [category['name'] for category in truth.loadCats(evaluation.params.catIds)]
        for group, classes in {'context': CONTEXT, 'texture': TEXTURE}.items():
            if set(classes) <= set(names):
                scores[f'AP_{group}'] = precision[:, :, [names.index(name) for name in classes], 0]
    return {name: 100 * float(mean) for name, part in scores.items() if (mean := _mean(part)) is not None}


def _nothing(truth: COCO) -> COCO:
    """Results without an entry, which ``loadRes`` does not take."""
    empty = COCO()
    empty.dataset = {**truth.dataset, 'annotations': []}
    empty.createIndex()
    return empty


def _mean(precision: np.ndarray) -> float | None:
    counted = precision[precision > -1]  # -1: there is no such object
    return counted.mean() if counted.size else None


def scores_of(results: Mapping[str, Path], truth: Callable[[str], Path]) -> dict[str, float]:
    """All of :func:`average_precision` of a run, as ``box/AP``.

    Args:
        results: Files by kind.
        truth: The COCO file of a kind.
    """
    scores = {}
    for kind, path in results.items():
        score = average_precision(truth(kind), path, kind)
        scores |= {f'{NAMES[kind]}/{name}': value for name, value in score.items()}
    return scores
