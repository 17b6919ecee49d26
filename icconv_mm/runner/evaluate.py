"""Evaluates a trained network on its validation images, and draws its confusions and its worst images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from PIL import Image

from icconv_mm.annotations.convert import path_from
from icconv_mm.annotations.images_on_disk import oriented_size
from icconv_mm.annotations.seg_maps import read_seg_map
from icconv_mm.errors import UserError, printable
from icconv_mm.hooks.logs import NAME_LETTERS, drawn_figure, warning_after_training
from icconv_mm.runner.images import read_image
from icconv_mm.runner.predict import Predictor
from icconv_mm.versions import is_installed
from icconv_mm_runtime.drawing import Drawing, DrawnObject, color_of, draw, tiles

_WORST = 10
_SHOWN = 100  # most classes of a confusion matrix: a figure of 37 inches
_SCORE, _IOU = 0.3, 0.5  # least score of a counted prediction, least IoU with its object
_NEAR = 0.1  # of a person's side: the distance at which a keypoint counts as found


# --- evaluation of predictions ---


@dataclass
class Evaluation:
    """Results of a task on annotated images.

    Attributes:
        names: Class names.
        confusion: How often a class (row) was predicted as another (column), [n, n]; for objects with one more row and
            column: missed objects, and predictions without an object.
        scores: Fraction of correct predictions, by image.
    """

    names: list[str]
    confusion: np.ndarray
    scores: dict[Path, float] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Returns the names of all rows and columns."""
        return [*self.names, '(none)'][: len(self.confusion)]

    def table(self) -> list[str]:
        """Returns a line per class: its number of objects, how many were found, and its most frequent confusion."""
        lines, labels = [], self.labels
        told, found = self.confusion.sum(1), self.confusion.sum(0)
        for label in np.flatnonzero(told[: len(self.names)]):
            row = self.confusion[label]
            others = [(int(row[k]), labels[k]) for k in np.flatnonzero(row) if k != label]
            most = f'; most often taken for {max(others)[1]}' if others else ''
            lines.append(
                f'{labels[label]}: {row[label] / told[label]:.1%} of {told[label]} found, '
                f'{row[label] / max(found[label], 1):.1%} of {found[label]} predictions right{most}'
            )
        return lines


def evaluate_predictions(predictor: Predictor, labels: Mapping[str, Path], out: Path) -> dict[str, Evaluation]:
    """Compares predictions with the annotation file of each task, from :mod:`icconv_mm.annotations.convert`.

    Draws ``confusion_TASK.png`` and ``worst_TASK.jpg``, the truth beside the prediction, in the folder ``out``.
    """
    evaluations = {}
    for task, file in labels.items():
        truth = _truth(task, file, predictor.classes)
        side = len(truth.classes) + (task in ('detection', 'instance'))
        own = Evaluation(truth.classes, np.zeros((side, side), dtype=np.int64))
        drawn: dict[Path, tuple[Drawing, Drawing]] = {}
        for (path, told), (_, sample) in zip(truth.images.items(), predictor.try_predict(list(truth.images))):
            if isinstance(sample, UserError):
                continue  # an unreadable image, which the training has reported
            if isinstance(sample, Exception):
                raise sample
            part = sample.get(task) if task in getattr(predictor.task, 'tasks', {}) else sample
            meta = predictor.task.parts(predictor.dataset_meta)
            adapter, own_meta = meta.get(task) or meta['']
            own.scores[path] = _COMPARE[task](truth, told, part, own.confusion)
            drawn[path] = truth.drawing(told), adapter.drawing(part, own_meta, _SCORE)
            if len(drawn) > _WORST:
                del drawn[max(drawn, key=own.scores.get)]
        evaluations[task] = own
        _draw_worst(drawn, own, out / f'worst_{task}.jpg')
        if own.confusion.sum():
            _draw_confusion(own, out / f'confusion_{task}.png')
    return evaluations


@dataclass
class _Truth:
    task: str
    classes: list[str]
    skeleton: list[tuple[int, int]]
    images: dict[Path, Any]

    def drawing(self, told: Any) -> Drawing:
        """Returns the drawing of an image's annotations."""
        if self.task == 'classification':
            return Drawing(title=f'truth: {self.classes[told]}')
        if self.task == 'semantic':
            return Drawing(seg_map=read_seg_map(told), names=self.classes, title='truth')
        objects = []
        for i, entry in enumerate(told):
            label = entry['category_id'] - 1
            x, y, w, h = entry['bbox']
            if self.task == 'pose':
                points = np.array(entry['keypoints'], dtype=float).reshape(-1, 3)
                shown = points[:, 2] > 0
                objects.append(DrawnObject(color_of(i), keypoints=points[:, :2], shown=shown, skeleton=self.skeleton))
            else:
                objects.append(DrawnObject(color_of(label), self.classes[label], [x, y, x + w, y + h]))
        return Drawing(objects, title='truth')


def _truth(task: str, file: Path, classes: Sequence[str]) -> _Truth:
    """Reads the annotations of a file whose names of images start from its folder."""
    if task == 'classification':
        lines = (line.rpartition(' ') for line in file.read_text().splitlines())
        return _Truth(task, list(classes), [], {path_from(file.parent, name): int(label) for name, _, label in lines})
    written = json.loads(Path(file).read_text())
    classes = [category['name'] for category in written['categories']]
    links = [(a - 1, b - 1) for a, b in written['categories'][0].get('skeleton') or ()]
    by_id = {entry['id']: entry for entry in written['images']}
    paths = {number: path_from(file.parent, entry['file_name']) for number, entry in by_id.items()}
    if task == 'semantic':
        maps = {paths[number]: file.parent / entry['seg_map'] for number, entry in by_id.items()}
        return _Truth(task, classes, links, maps)
    images: dict[Path, Any] = {path: [] for path in paths.values()}
    for entry in written['annotations']:
        images[paths[entry['image_id']]].append(entry)
    return _Truth(task, classes, links, images)


def _compare_objects(truth: _Truth, told: list[dict], sample: Any, confusion: np.ndarray) -> float:
    """Pairs objects and predictions by their boxes, the best scores first, whatever their classes.

    An unpaired prediction with at least half its area in an ignored object (a crowd, VOC's ``difficult``) is ignored,
    as in COCO's evaluation.
    """
    from pycocotools.mask import iou

    found = sample.pred_instances[sample.pred_instances.scores >= _SCORE].cpu().numpy()
    ignored = np.array([entry['bbox'] for entry in told if entry['iscrowd']], dtype=float).reshape(-1, 4)
    told = [entry for entry in told if not entry['iscrowd']]
    labels = np.array([entry['category_id'] - 1 for entry in told], dtype=int)
    boxes = np.array([entry['bbox'] for entry in told], dtype=float).reshape(-1, 4)
    corners = found.bboxes.astype(float)
    own = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    overlaps, inside = (
        iou(own, each, [is_crowd] * len(each)) if len(own) and len(each) else np.zeros((len(own), len(each)))
        for each, is_crowd in ((boxes, 0), (ignored, 1))
    )
    none, right, total = len(confusion) - 1, 0, len(boxes)
    free = np.ones(len(boxes), dtype=bool)
    for i in np.argsort(-found.scores):
        best = int(np.where(free, overlaps[i], 0).argmax()) if free.any() else -1
        is_of_none = best < 0 or overlaps[i, best] < _IOU
        if is_of_none and (inside[i] >= _IOU).any():
            continue
        total += 1
        if is_of_none:
            confusion[none, found.labels[i]] += 1
            continue
        free[best] = False
        confusion[labels[best], found.labels[i]] += 1
        right += labels[best] == found.labels[i]
    np.add.at(confusion, (labels[free], none), 1)
    return 2 * right / total if total else 1.0


def _compare_maps(truth: _Truth, told: str, sample: Any, confusion: np.ndarray) -> float:
    labels = read_seg_map(told).astype(np.int64)
    found = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)
    if found.shape != labels.shape:  # a large image, which is read reduced
        found = cv2.resize(found.astype(np.int32), labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    known = (labels < len(confusion)) & (found < len(confusion))
    pairs = np.bincount(labels[known] * len(confusion) + found[known], minlength=confusion.size)
    confusion += pairs.reshape(confusion.shape)
    return float((labels[known] == found[known]).mean()) if known.any() else 1.0


def _compare_poses(truth: _Truth, told: list[dict], sample: Any, confusion: np.ndarray) -> float:
    """Returns the fraction of annotated keypoints that are near those of the best prediction for their person."""
    found, near, total = sample.pred_instances.keypoints, 0, 0
    for entry in (entry for entry in told if not entry.get('iscrowd')):
        points = np.array(entry['keypoints'], dtype=float).reshape(-1, 3)
        seen = points[:, 2] > 0
        side = max(entry['bbox'][2:])
        total += int(seen.sum())
        hits = [(np.linalg.norm(own[seen] - points[seen, :2], axis=1) < _NEAR * side).sum() for own in found]
        near += int(max(hits, default=0))
    return near / total if total else 1.0


def _compare_classes(truth: _Truth, told: int, sample: Any, confusion: np.ndarray) -> float:
    confusion[told, int(sample.pred_score.argmax())] += 1
    return float(sample.pred_score[told])


_COMPARE = {
    'classification': _compare_classes,
    'detection': _compare_objects,
    'instance': _compare_objects,
    'semantic': _compare_maps,
    'pose': _compare_poses,
}


def _draw_worst(drawn: Mapping[Path, tuple[Drawing, Drawing]], evaluation: Evaluation, path: Path) -> None:
    """Draws the truth beside the prediction, the worst image first."""
    shown = []
    for each in sorted(drawn, key=evaluation.scores.get):
        image = read_image(each, 1600)[..., ::-1]
        drawn[each][1].title = f'{evaluation.scores[each]:.0%} right: {each.name}'
        for drawing in drawn[each]:  # truth and prediction
            drawing.size = oriented_size(each)[0][::-1]
            shown.append(draw(image, drawing, longest=900))
    if shown:
        Image.fromarray(tiles(shown, side=640, columns=2)).save(path)


def _draw_confusion(evaluation: Evaluation, path: Path) -> None:
    """Draws fractions of each row, with numbers if legible; of many classes, those with the most confusions."""
    if not is_installed('matplotlib'):
        return
    told, found = evaluation.confusion.sum(1), evaluation.confusion.sum(0)
    there = np.flatnonzero(told + found)
    mistakes = (told + found - 2 * evaluation.confusion.diagonal())[there]
    kept = np.sort(there[np.argsort(-mistakes, kind='stable')[:_SHOWN]])
    shares = evaluation.confusion[np.ix_(kept, kept)] / np.maximum(told[kept, None], 1)
    names = [evaluation.labels[i][:NAME_LETTERS] for i in kept]
    side = max(4, 0.35 * len(kept) + 0.14 * max(map(len, names)) + 1)  # inches for the rows and the longest name
    with drawn_figure(path, (side, side)) as figure:
        axis = figure.subplots()
        axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
        axis.set_xticks(range(len(kept)), names, rotation=90)
        axis.set_yticks(range(len(kept)), names)
        axis.set(xlabel='predicted', ylabel='truth')
        if len(kept) < len(there):
            axis.set_title(f'the {len(kept)} with the most mistakes of {len(there)} classes')
        for i, k in np.ndindex(*shares.shape) if len(kept) <= 25 else ():
            if shares[i, k] >= 0.005:
                ink = 'k' if shares[i, k] < 0.6 else 'w'
                axis.text(k, i, f'{shares[i, k]:.0%}', ha='center', va='center', fontsize=7, color=ink)


def evaluate_run(cfg: Config, say: Any = print) -> None:
    """Evaluates the best checkpoint of a run on the dataset that :func:`icconv_mm.apis.config_for` wrote for it.

    An error is only a warning, because the training has ended. ``cfg`` is the config as it was written, before anything
    was built from it.
    """
    with warning_after_training('evaluating its checkpoint'):
        work_dir = Path(cfg.work_dir)
        best = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
        last = work_dir / 'last_checkpoint'
        checkpoint = str(best[-1]) if best else last.read_text() if last.is_file() else None
        labels = {}
        for task in _COMPARE:
            for end in ('', f'_{task}'):
                file = cfg.get(f'val_ann_file{end}')
                if file and Path(file).name.startswith(f'{task}_'):
                    labels[task] = Path(file)
        if not labels or checkpoint is None:
            return
        predictor = Predictor(cfg, checkpoint)
        for task, evaluation in evaluate_predictions(predictor, labels, work_dir).items():
            for line in evaluation.table():
                say(printable(f'{task}: {line}'))
            names = ', '.join(path.name for path in sorted(evaluation.scores, key=evaluation.scores.get)[:3])
            where = work_dir / f'worst_{task}.jpg'
            say(printable(f'{task}: the worst images ({names}, ...), truth beside prediction: {where}'))
