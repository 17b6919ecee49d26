"""What a run says of itself: what matters first, curves when it ends, and where the network fails."""

import itertools
import json
import logging
import math
import re
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from PIL import Image

from icconv_mm.data.found import oriented_size
from icconv_mm.data.label_maps import read_label_map
from icconv_mm.data.tree import kind_of
from icconv_mm.errors import UserError, printable, sentence
from icconv_mm.runner.infer import Predictor
from icconv_mm.runner.inputs import read
from icconv_mm.versions import is_installed
from icconv_mm_runtime.drawing import Content, Mark, color_of, draw, tiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORST = 10
_SHOWN = 100  # classes of a confusion matrix: a figure of 37 inches
_LETTERS = 40  # of a name in a figure
_LAST_STEP = 1 << 53  # to which a float counts
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
            with _after_training('drawing results.png'):
                if (path := draw_curves(Path(runner.work_dir), steps)) is not None:
                    runner.logger.info(f'losses, metrics and learning rate: {path}')


@contextmanager
def _after_training(what: str) -> Iterator[None]:
    """A warning in the place of an exception: a training that has ended stays ended, whatever is drawn of it."""
    try:
        yield
    except Exception as error:
        said = printable(sentence(error).splitlines()[0])
        text = f'the training has ended well, but {what} failed: {type(error).__name__}: {said:.300}'
        print_log(text, 'current', logging.WARNING)
        print_log(printable(traceback.format_exc(), '\n'), 'current', logging.DEBUG)


class UnmeasuredHook(Hook):
    """Takes scores that are none out of the metrics of a validation, after the log and before what judges by them.

    Without annotated objects, COCO's metrics are -1 and means are not a number. The first of them would be the best
    checkpoint, and ``EarlyStoppingHook`` would end the training.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._is_said = False

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        judged = {getattr(hook, 'monitor', None) for hook in runner.hooks}
        judged.update(key for hook in runner.hooks for key in getattr(hook, 'key_indicators', None) or ())
        none = {key: value for key, value in (metrics or {}).items() if _is_unmeasured(key, value)}
        none = {key: value for key, value in none.items() if key in judged or 'auto' in judged}
        for key in none:
            del metrics[key]
        if none and not self._is_said:
            self._is_said = True
            warnings.filterwarnings('ignore', 'Skip early stopping process')  # mmengine's, at each validation
            runner.logger.warning(
                f'{", ".join(f"{key} is {value}" for key, value in none.items())}, as where a validation has no '
                'annotated object: no best checkpoint is chosen, no lack of progress ends the training, and the last '
                'checkpoint is the result'
            )


def _is_unmeasured(key: str, value: Any) -> bool:
    """Whether a metric is not a number, or what COCO's evaluation gives without objects."""
    is_of_coco = re.search('A[PR]', key) is not None
    return isinstance(value, (int, float)) and (math.isnan(value) or (value == -1 and is_of_coco))


def draw_curves(work_dir: Path, steps: int = 1) -> Path | None:
    """``results.png`` of all that the runs in a folder have logged; None if they have not.

    Args:
        work_dir: The folder; of what was logged before, a run that goes on or begins anew takes the place.
        steps: Iterations of an epoch, where validations are numbered by epochs.
    """
    groups: dict[str, dict[str, dict[int, float]]] = {'loss': {}, 'metric': {}, 'learning rate': {}}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        entries = _logged(file)
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
    path = work_dir / 'results.png'
    with _figure(path, (6 * len(groups), 4.5)) as figure:
        for axis, (name, group) in zip(np.atleast_1d(figure.subplots(1, len(groups))), groups.items()):
            curves = sorted(group.items(), key=lambda item: (len(item[0]), item[0]))[:12]
            for number, (key, values) in enumerate(curves):
                color, marker = np.array(color_of(number)) / 255, '.' * (len(values) < 30)
                axis.plot(*zip(*sorted(values.items())), label=key[:_LETTERS], color=color, marker=marker)
            axis.set_xlabel('iteration')
            axis.set_title(name)
            axis.legend(fontsize=7)
            axis.grid(alpha=0.3)
    return path


@contextmanager
def _figure(path: Path, size: tuple[float, float]) -> 'Iterator[Figure]':
    """A figure that is written at the end; its words are no formulas, though names of classes may have ``$``."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({'text.parse_math': False, 'text.usetex': False}):
        figure = Figure(figsize=size, layout='constrained')
        yield figure
        figure.savefig(path, dpi=110)


def _logged(file: Path) -> list[dict[str, Any]]:
    """The lines of a log that are objects with a place; one that was cut when a run was killed is none."""
    entries = []
    for line in file.read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        place = entry.get('step', entry.get('iter', 0)) if isinstance(entry, dict) else None
        if isinstance(place, (int, float)) and abs(place) < _LAST_STEP:
            entries.append(entry)
    return entries


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
        names: Classes.
        confusion: How often a class (row) was taken for another (column), [n, n]; for things one more row and column:
            what was missed or is not there.
        scores: Share that is right, by picture.
    """

    names: list[str]
    confusion: np.ndarray
    scores: dict[Path, float] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """Names of all rows and columns."""
        return [*self.names, '(none)'][: len(self.confusion)]

    def table(self) -> list[str]:
        """A line for each class: how many there are, how many were found, and what they were taken for most."""
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


def judge(predictor: Predictor, labels: Mapping[str, Path], out: Path) -> dict[str, Judged]:
    """Compare predictions with the labels that :mod:`icconv_mm.data.prepare` wrote; draw the worst pictures.

    Args:
        predictor: The network.
        labels: The file of each task, by the name of the task.
        out: Gets ``confusion_TASK.png`` and ``worst_TASK.jpg``: the truth beside the prediction.
    """
    judged = {}
    for task, file in labels.items():
        truth = _truth(task, file, predictor.classes)
        side = len(truth.classes) + (task in ('boxes', 'masks'))
        own = Judged(truth.classes, np.zeros((side, side), dtype=np.int64))
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


def _truth(task: str, file: Path, classes: Sequence[str]) -> _Truth:
    """The annotations in a file that names images by their whole paths."""
    if task == 'classes':
        lines = (line.rpartition(' ') for line in file.read_text().splitlines())
        return _Truth(task, list(classes), [], {Path(name): int(label) for name, _, label in lines})
    content = json.loads(Path(file).read_text())
    classes = [category['name'] for category in content['categories']]
    links = [(a - 1, b - 1) for a, b in content['categories'][0].get('skeleton') or ()]
    images = {image['id']: image for image in content['images']}
    if task == 'semantic':
        return _Truth(
            task, classes, links, {Path(i['file_name']): file.parent / i['label_map'] for i in images.values()}
        )
    pictures: dict[Path, Any] = {Path(image['file_name']): [] for image in images.values()}
    for entry in content['annotations']:
        pictures[Path(images[entry['image_id']]['file_name'])].append(entry)
    return _Truth(task, classes, links, pictures)


def _compare_things(truth: _Truth, told: list[dict], sample: Any, confusion: np.ndarray) -> float:
    """Things and predictions are paired by their boxes, the best scores first, whatever their classes.

    A prediction of nothing else, half of which is in an ignored thing (a crowd, VOC's ``difficult``), counts neither
    way, as in COCO's evaluation.
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
    for entry in (entry for entry in told if not entry.get('iscrowd')):
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
    """Shares of each row, with numbers where they can be read; of many classes those with the most mistakes."""
    if not is_installed('matplotlib'):
        return
    told, found = judged.confusion.sum(1), judged.confusion.sum(0)
    there = np.flatnonzero(told + found)
    mistakes = (told + found - 2 * judged.confusion.diagonal())[there]
    kept = np.sort(there[np.argsort(-mistakes, kind='stable')[:_SHOWN]])
    shares = judged.confusion[np.ix_(kept, kept)] / np.maximum(told[kept, None], 1)
    labels = judged.labels
    names = [labels[i][:_LETTERS] for i in kept]
    side = max(4, 0.35 * len(kept) + 0.14 * max(map(len, names)) + 1)  # inches of rows and of the longest name
    with _figure(path, (side, side)) as figure:
        axis = figure.subplots()
        axis.imshow(shares, cmap='Blues', vmin=0, vmax=1)
        axis.set_xticks(range(len(kept)), names, rotation=90)
        axis.set_yticks(range(len(kept)), names)
        axis.set_xlabel('predicted')
        axis.set_ylabel('truth')
        if len(kept) < len(there):
            axis.set_title(f'the {len(kept)} with the most mistakes of {len(there)} classes')
        for i, k in np.ndindex(*shares.shape) if len(kept) <= 25 else ():
            if shares[i, k] >= 0.005:
                ink = 'k' if shares[i, k] < 0.6 else 'w'
                axis.text(k, i, f'{shares[i, k]:.0%}', ha='center', va='center', fontsize=7, color=ink)


def judge_run(cfg: Config, say: Any = print) -> None:
    """Judge the best checkpoint of a run on the data that :func:`icconv_mm.apis.config_for` wrote for it.

    What fails here is a warning: the training has ended.

    Args:
        cfg: The config as it was written, before anything was built of it.
        say: Called with each line.
    """
    with _after_training('judging its checkpoint'):
        _judge_run(cfg, say)


def _judge_run(cfg: Config, say: Any) -> None:
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
    for task, judged in judge(predictor, labels, work_dir).items():
        for line in judged.table():
            say(printable(f'{task}: {line}'))
        names = ', '.join(path.name for path in sorted(judged.scores, key=judged.scores.get)[:3])
        where = work_dir / f'worst_{task}.jpg'
        say(printable(f'{task}: the worst pictures ({names}, ...), truth beside prediction: {where}'))
