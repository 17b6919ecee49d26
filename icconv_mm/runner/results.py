"""What a run says of itself: what matters first, curves when it ends, and where the network fails."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from PIL import Image

from icconv_mm.data.found import oriented_size
from icconv_mm.data.label_maps import read_label_map
from icconv_mm.data.tree import kind_of
from icconv_mm.errors import UserError
from icconv_mm.runner.infer import Predictor
from icconv_mm.runner.inputs import read
from icconv_mm.versions import is_installed
from icconv_mm_runtime.drawing import Content, Mark, color_of, draw, tiles

_WORST = 10
_SCORE, _IOU = 0.3, 0.5  # from which a prediction counts, and is of a thing
_NO_METRICS = ('step', 'epoch', 'time', 'data_time')  # of what a validation logs
_NEAR = 0.1  # of the side of a person: a keypoint that is found


class OpeningHook(Hook):
    """The first lines of the log: config, network, data, schedule, machine. Everything else is in the saved config."""

    priority = 'HIGHEST'

    def before_train(self, runner: Runner) -> None:
        loop = runner.train_loop
        epochs = isinstance(loop, EpochBasedTrainLoop)
        length = f'{loop.max_epochs} epochs, {loop.max_iters} iterations' if epochs else f'{loop.max_iters} iterations'
        data = [f'{len(loop.dataloader.dataset)} pictures to train']
        if isinstance(runner._val_loop, BaseLoop):
            data.append(f'{len(runner.val_loop.dataloader.dataset)} to validate')
        batch = loop.dataloader.batch_size or getattr(loop.dataloader.batch_sampler, 'batch_size', 'several')
        self._say(runner, [*data, f'batches of {batch}', length])

    def before_test(self, runner: Runner) -> None:
        self._say(runner, [f'{len(runner.test_loop.dataloader.dataset)} pictures to test'])

    def _say(self, runner: Runner, data: Sequence[str]) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        parts = ', '.join(
            kind_of(part) for part in (runner.cfg.model, runner.cfg.model.get('backbone') or {}) if kind_of(part)
        )
        count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        device = next((str(parameter.device) for parameter in model.parameters()), 'cpu')
        runner.logger.info(
            f'{runner.cfg.filename} -> {runner.work_dir}\n'
            f'  network: {parts}, {count:.1f} million parameters\n'
            f'  data: {", ".join(data)}\n'
            f'  machine: {device}, {get_world_size()} processes, torch {torch.__version__}, seed {runner.seed}'
        )


class CurvesHook(Hook):
    """Draws losses, metrics and the learning rate against iterations into ``results.png`` when a training ends."""

    priority = 'LOWEST'

    def after_train(self, runner: Runner) -> None:
        if is_main_process() and is_installed('matplotlib'):
            steps = 1
            if isinstance(runner.train_loop, EpochBasedTrainLoop):
                steps = len(runner.train_loop.dataloader)
            if (path := draw_curves(Path(runner.work_dir), steps)) is not None:
                runner.logger.info(f'losses, metrics and learning rate: {path}')


def draw_curves(work_dir: Path, steps: int = 1) -> Path | None:
    """``results.png`` of all that the runs in a folder have logged; None if they have not.

    Args:
        work_dir: The folder; of what was logged before, a run that goes on or begins anew takes the place.
        steps: Iterations of an epoch, where validations are numbered by epochs.
    """
    groups: dict[str, dict[str, dict[int, float]]] = {'loss': {}, 'metric': {}, 'learning rate': {}}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        entries = [json.loads(line) for line in file.read_text().splitlines()]
        trained = [('lr' in entry or 'iter' in entry) for entry in entries]
        places = [
            entry.get('step', entry.get('iter', 0)) * (1 if is_training else steps)
            for entry, is_training in zip(entries, trained)
        ]
        _forget(groups, min(itertools.compress(places, trained), default=math.inf))
        for entry, is_training, place in zip(entries, trained, places):
            for key, value in entry.items():
                if not isinstance(value, (int, float)):  # one for each class
                    continue
                name = 'learning rate' if key.endswith('lr') else 'loss' if 'loss' in key else None
                if not is_training:
                    name = None if key in _NO_METRICS or value < 0 else 'metric'
                if name is not None:
                    groups[name].setdefault(key, {})[place] = value
    groups = {name: group for name, group in groups.items() if group}
    if not groups:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(groups), 4.5), layout='constrained')
    for axis, (name, group) in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups.items()):
        for number, (key, values) in enumerate(sorted(group.items(), key=lambda item: (len(item[0]), item[0]))[:12]):
            color = np.array(color_of(number)) / 255
            axis.plot(*zip(*sorted(values.items())), label=key, color=color, marker='.' * (len(values) < 30))
        axis.set_xlabel('iteration')
        axis.set_title(name)
        axis.legend(fontsize=7)
        axis.grid(alpha=0.3)
    path = work_dir / 'results.png'
    figure.savefig(path, dpi=110)
    return path


def _forget(groups: Mapping[str, Mapping[str, dict[int, float]]], begin: float) -> None:
    """Drop what was logged from an iteration on."""
    for values in (values for group in groups.values() for values in group.values()):
        for place in [place for place in values if place >= begin]:
            del values[place]


# --- where the network fails ---


@dataclass
class Judged:
    """How a task did on pictures with labels.

    Attributes:
        names: Classes, and for things ``(none)``: what was missed or is not there.
        confusion: How often a class (row) was taken for another (column), [n, n].
        scores: Share that is right, by picture.
    """

    names: list[str]
    confusion: np.ndarray
    scores: dict[Path, float] = field(default_factory=dict)

    def table(self) -> list[str]:
        """A line for each class: how many there are, how many were found, and what they were taken for most."""
        lines = []
        for label, name in enumerate(self.names):
            row, column = self.confusion[label], self.confusion[:, label]
            if name == '(none)' or not row.sum():
                continue
            others = [(int(count), self.names[k]) for k, count in enumerate(row) if k != label and count]
            most = f'; most often taken for {max(others)[1]}' if others else ''
            lines.append(
                f'{name}: {row[label] / row.sum():.1%} of {int(row.sum())} found, '
                f'{row[label] / max(column.sum(), 1):.1%} of {int(column.sum())} predictions right{most}'
            )
        return lines


def judge(predictor: Predictor, labels: Mapping[str, Path], folders: Mapping[str, str], out: Path) -> dict[str, Judged]:
    """Compare predictions with the labels that :mod:`icconv_mm.data.prepare` wrote; draw the worst pictures.

    Args:
        predictor: The network.
        labels: The file of each task, by the name of the task.
        folders: The folder of the pictures of each task.
        out: Gets ``confusion_TASK.png`` and ``worst_TASK.jpg``: the truth beside the prediction.
    """
    judged = {}
    for task, file in labels.items():
        truth = _truth(task, file, Path(folders[task]), predictor.classes)
        names = truth.classes + (['(none)'] if task in ('boxes', 'masks') else [])
        own = Judged(names, np.zeros((len(names), len(names)), dtype=np.int64))
        drawn: dict[Path, tuple[Content, Content]] = {}
        for (path, told), (_, sample) in zip(truth.pictures.items(), predictor.try_predict(list(truth.pictures))):
            if isinstance(sample, Exception):
                if isinstance(sample, UserError):
                    continue  # a picture that cannot be read, which the training has named
                raise sample
            part = sample.get(task) if task in getattr(predictor.task, 'tasks', {}) else sample
            meta = predictor.task.parts(predictor.dataset_meta)
            adapter, own_meta = meta.get(task) or meta['']
            own.scores[path] = _COMPARE[task](truth, told, part, own.confusion)
            drawn[path] = truth.content(told), adapter.content(part, own_meta, _SCORE)
            if len(drawn) > _WORST:
                del drawn[max(drawn, key=own.scores.get)]
        judged[task] = own
        _draw_worst(drawn, own, out / f'worst_{task}.jpg')
        if own.confusion.sum():
            _draw_confusion(own, out / f'confusion_{task}.png')
    return judged


@dataclass
class _Truth:
    task: str
    classes: list[str]
    skeleton: list[tuple[int, int]]
    pictures: dict[Path, Any]

    def content(self, told: Any) -> Content:
        """The labels of a picture as marks."""
        if self.task == 'classes':
            return Content(title=f'truth: {self.classes[told]}')
        if self.task == 'semantic':
            return Content(label_map=read_label_map(told), names=self.classes, title='truth')
        marks = []
        for i, entry in enumerate(told):
            label = entry['category_id'] - 1
            x, y, w, h = entry['bbox']
            if self.task == 'pose':
                points = np.array(entry['keypoints'], dtype=float).reshape(-1, 3)
                shown = points[:, 2] > 0
                marks.append(Mark(color_of(i), keypoints=points[:, :2], shown=shown, skeleton=self.skeleton))
            else:
                marks.append(Mark(color_of(label), self.classes[label], [x, y, x + w, y + h]))
        return Content(marks, title='truth')


def _truth(task: str, file: Path, folder: Path, classes: Sequence[str]) -> _Truth:
    if task == 'classes':
        lines = (line.rpartition(' ') for line in file.read_text().splitlines())
        return _Truth(task, list(classes), [], {folder / name: int(label) for name, _, label in lines})
    content = json.loads(Path(file).read_text())
    classes = [category['name'] for category in content['categories']]
    links = [(a - 1, b - 1) for a, b in content['categories'][0].get('skeleton') or ()]
    images = {image['id']: image for image in content['images']}
    if task == 'semantic':
        return _Truth(task, classes, links, {folder / i['file_name']: i['label_map'] for i in images.values()})
    pictures: dict[Path, Any] = {folder / image['file_name']: [] for image in images.values()}
    for entry in content['annotations']:
        pictures[folder / images[entry['image_id']]['file_name']].append(entry)
    return _Truth(task, classes, links, pictures)


def _compare_things(truth: _Truth, told: list[dict], sample: Any, confusion: np.ndarray) -> float:
    """Things and predictions are paired by their boxes, the best scores first, whatever their classes."""
    from pycocotools.mask import iou

    found = sample.pred_instances[sample.pred_instances.scores >= _SCORE].cpu().numpy()
    told = [entry for entry in told if not entry['iscrowd']]
    labels = np.array([entry['category_id'] - 1 for entry in told], dtype=int)
    boxes = np.array([entry['bbox'] for entry in told], dtype=float).reshape(-1, 4)
    corners = found.bboxes.astype(float)
    own = np.hstack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    overlaps = iou(own, boxes, [0] * len(boxes)) if len(own) and len(boxes) else np.zeros((len(own), len(boxes)))
    none, right = len(confusion) - 1, 0
    free = np.ones(len(boxes), dtype=bool)
    for i in np.argsort(-found.scores):
        best = int(np.where(free, overlaps[i], 0).argmax()) if free.any() else -1
        if best < 0 or overlaps[i, best] < _IOU:
            confusion[none, found.labels[i]] += 1
            continue
        free[best] = False
        confusion[labels[best], found.labels[i]] += 1
        right += labels[best] == found.labels[i]
    np.add.at(confusion, (labels[free], none), 1)
    total = len(boxes) + len(found.scores)
    return 2 * right / total if total else 1.0


def _compare_maps(truth: _Truth, told: str, sample: Any, confusion: np.ndarray) -> float:
    labels = read_label_map(told).astype(np.int64)
    found = sample.pred_sem_seg.data[0].cpu().numpy().astype(np.int64)
    if found.shape != labels.shape:  # of a large picture, which is read reduced
        found = cv2.resize(found.astype(np.int32), labels.shape[::-1], interpolation=cv2.INTER_NEAREST)
    known = (labels < len(confusion)) & (found < len(confusion))
    pairs = np.bincount(labels[known] * len(confusion) + found[known], minlength=confusion.size)
    confusion += pairs.reshape(confusion.shape)
    return float((labels[known] == found[known]).mean()) if known.any() else 1.0


def _compare_poses(truth: _Truth, told: list[dict], sample: Any, confusion: np.ndarray) -> float:
    """The share of labelled keypoints that some person has near them, each person's from one prediction."""
    found, near, total = sample.pred_instances.keypoints, 0, 0
    for entry in told:
        points = np.array(entry['keypoints'], dtype=float).reshape(-1, 3)
        seen = points[:, 2] > 0
        side = max(entry['bbox'][2:])
        total += int(seen.sum())
        hits = [(np.linalg.norm(own[seen] - points[seen, :2], axis=1) < _NEAR * side).sum() for own in found]
        near += int(max(hits, default=0))
    return near / total if total else 1.0


def _compare_classes(truth: _Truth, told: int, sample: Any, confusion: np.ndarray) -> float:
    """The score of the class that it is."""
    confusion[told, int(sample.pred_score.argmax())] += 1
    return float(sample.pred_score[told])


_COMPARE = {
    'classes': _compare_classes,
    'boxes': _compare_things,
    'masks': _compare_things,
    'semantic': _compare_maps,
    'pose': _compare_poses,
}


def _draw_worst(drawn: Mapping[Path, tuple[Content, Content]], judged: Judged, path: Path) -> None:
    """The truth beside the prediction, the worst picture first."""
    shown = []
    for each in sorted(drawn, key=judged.scores.get):
        image = read(each, 1600)[..., ::-1]
        drawn[each][1].title = f'{judged.scores[each]:.0%} right: {each.name}'
        for content in drawn[each]:  # the truth, and what was found
            content.size = oriented_size(each)[0][::-1]
            shown.append(draw(image, content, longest=900))
    if shown:
        Image.fromarray(tiles(shown, side=640, columns=2)).save(path)


def _draw_confusion(judged: Judged, path: Path) -> None:
    """Shares of each row, with numbers where they can be read."""
    if not is_installed('matplotlib'):
        return
    from matplotlib.figure import Figure

    kept = [i for i in range(len(judged.names)) if judged.confusion[i].sum() or judged.confusion[:, i].sum()]
    counts = judged.confusion[np.ix_(kept, kept)]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = max(4, 0.35 * len(kept) + 2)
    figure = Figure(figsize=(side, side), layout='constrained')
    axis = figure.subplots()
    axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    names = [judged.names[i] for i in kept]
    axis.set_xticks(range(len(kept)), names, rotation=90)
    axis.set_yticks(range(len(kept)), names)
    axis.set_xlabel('predicted')
    axis.set_ylabel('truth')
    for i, k in np.ndindex(*shares.shape) if len(kept) <= 25 else ():
        if shares[i, k] >= 0.005:
            ink = 'k' if shares[i, k] < 0.6 else 'w'
            axis.text(k, i, f'{shares[i, k]:.0%}', ha='center', va='center', fontsize=7, color=ink)
    figure.savefig(path, dpi=110)


def judge_run(cfg: Config, say: Any = print) -> None:
    """Judge the best checkpoint of a run on the data that :func:`icconv_mm.apis.config_for` wrote for it.

    Args:
        cfg: The config as it was written, before anything was built of it.
        say: Called with each line.
    """
    work_dir = Path(cfg.work_dir)
    best = sorted(work_dir.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    last = work_dir / 'last_checkpoint'
    checkpoint = str(best[-1]) if best else last.read_text() if last.is_file() else None
    labels, folders = {}, {}
    for task in _COMPARE:
        for end in ('', f'_{task}'):
            file = cfg.get(f'val_labels{end}')
            if file and Path(file).name.startswith(f'{task}_'):
                labels[task], folders[task] = Path(file), cfg[f'images{end}']
    if not labels or checkpoint is None:
        return
    predictor = Predictor(cfg, checkpoint)
    for task, judged in judge(predictor, labels, folders, work_dir).items():
        for line in judged.table():
            say(f'{task}: {line}')
        names = ', '.join(path.name for path in sorted(judged.scores, key=judged.scores.get)[:3])
        say(f'{task}: the worst pictures ({names}, ...), truth beside prediction: {work_dir / f"worst_{task}.jpg"}')
