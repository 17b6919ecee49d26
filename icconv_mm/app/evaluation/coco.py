"""What an evaluation of COCO's, which mmdet and mmpose run, has found by class."""

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np

from icconv_mm.app.evaluation.results import MetricTable


@contextlib.contextmanager
def watched_coco(*kinds: type) -> Iterator[list]:
    """Yields a list of the evaluations that classes like COCOeval accumulate in the block."""
    seen: list = []

    def watching(accumulate: Callable[..., None]) -> Callable[..., None]:
        def watched(self: Any, *args: Any) -> None:
            seen.append(self)
            accumulate(self, *args)

        return watched

    with contextlib.ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(patch.object(kind, 'accumulate', watching(kind.accumulate)))
        yield seen


@dataclass
class CocoTables:
    """What an evaluation of COCO's has found.

    Attributes:
        kind: ``bbox``, ``segm``, ``keypoints``, ...
        table: AP by class and size; the first line is of all classes.
        matches: By class: scores of the predictions, whether each is right at the first IoU, and the number of objects.
        curves: Recall and interpolated precision at the first IoU of each class with objects.
        iou: The first IoU.
        truth: The annotations.
    """

    kind: str
    table: MetricTable
    matches: dict[str, tuple[np.ndarray, np.ndarray, int]]
    curves: dict[str, np.ndarray]
    iou: float
    truth: Any

    def with_thresholds(self, points: Mapping[str, Sequence[float] | None]) -> MetricTable:
        """Returns the table with the threshold of each class and what it gives, of :func:`best_threshold`."""
        columns = [*self.table.columns, 'threshold', 'precision', 'recall', 'F1']
        first, *rows = self.table.rows
        filled = [[*first, *[None] * 4], *([*row, *(points.get(row[0]) or [None] * 4)] for row in rows)]
        return MetricTable(self.table.title, columns, filled)


def coco_tables(evaluator: Any, title: str, scores: Mapping[int, float] | None = None) -> CocoTables:
    """Returns the results of a COCOeval that has accumulated and summarized.

    Args:
        evaluator: It.
        title: Title of the table.
        scores: Scores of the predictions by id, if thresholds are not of those that the evaluation sorts by.
    """
    params = evaluator.params
    names = [evaluator.cocoGt.cats[number]['name'] for number in params.catIds]
    precision = evaluator.eval['precision'][..., -1]  # IoU, recall, class, area; of the most predictions, as mmdet's
    which = [np.isclose(params.iouThrs, level) for level in (0.5, 0.75)]
    areas = range(1, precision.shape[3])
    columns = ['class', 'objects', 'AP', 'AP50', 'AP75', *(f'AP {params.areaRngLbl[area]}' for area in areas)]
    unmatched = -1 if type(evaluator).__module__.startswith('xtcocotools') else 0
    matches = {name: _matches(images, scores, unmatched) for name, images in zip(names, _matched(evaluator))}
    count = len(columns) - 2
    stats = list(evaluator.stats[: 3 if params.iouType == 'keypoints_crowd' else count])  # its others are of no area
    means = [float(value) if value > -1 else None for value in stats] + [None] * (count - len(stats))
    rows = [['all', sum(total for *_, total in matches.values()), *means]]
    for k, name in enumerate(names):
        values = precision[:, :, k]
        chosen = [values[..., 0], *(values[index][..., 0] for index in which), *(values[..., area] for area in areas)]
        rows.append([name, matches[name][2], *map(_mean, chosen)])
    first = precision[0, :, :, 0]
    curves = {name: np.stack([params.recThrs, first[:, k]]) for k, name in enumerate(names) if first[0, k] > -1}
    table = MetricTable(title, columns, rows)
    return CocoTables(params.iouType, table, matches, curves, float(params.iouThrs[0]), evaluator.cocoGt)


def _mean(values: np.ndarray) -> float | None:
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _matched(evaluator: Any) -> list[list[dict]]:
    """Returns the matches of each class and image, of all predictions.

    An evaluation drops those beyond its last ``maxDets``, 20 people, say. Images with more are matched again.
    """
    params = evaluator.params
    count, most = len(params.imgIds), params.maxDets[-1]
    starts = range(0, len(evaluator.evalImgs), len(evaluator.evalImgs) // len(params.catIds))
    evaluations = [list(filter(None, evaluator.evalImgs[start : start + count])) for start in starts]
    cut = sorted({image['image_id'] for images in evaluations for image in images if len(image['dtScores']) >= most})
    if cut:
        again = copy.copy(evaluator)
        again.params = copy.deepcopy(params)
        again.params.imgIds, again.params.areaRng = cut, params.areaRng[:1]
        again.params.iouThrs = params.iouThrs[:1]
        again.params.maxDets = [max(most, *(len(evaluator.cocoDt.imgToAnns[number]) for number in cut))]
        with contextlib.redirect_stdout(io.StringIO()):
            again.evaluate()
        for k, images in enumerate(evaluations):
            whole = filter(None, again.evalImgs[k * len(cut) : (k + 1) * len(cut)])
            images[:] = [*(image for image in images if image['image_id'] not in cut), *whole]
    return evaluations


def _matches(
    evaluations: Sequence[dict], scores: Mapping[int, float] | None, unmatched: int
) -> tuple[np.ndarray, np.ndarray, int]:
    if not evaluations:
        return np.zeros(0), np.zeros(0, bool), 0
    values = (
        [[scores[i] for i in evaluation['dtIds']] for evaluation in evaluations]
        if scores
        else [evaluation['dtScores'] for evaluation in evaluations]
    )
    hits = np.concatenate([evaluation['dtMatches'][0] > unmatched for evaluation in evaluations])
    counted = ~np.concatenate([np.asarray(evaluation['dtIgnore'][0], dtype=bool) for evaluation in evaluations])
    total = int(sum((np.asarray(evaluation['gtIgnore']) == 0).sum() for evaluation in evaluations))
    return np.concatenate(values)[counted], hits[counted], total
