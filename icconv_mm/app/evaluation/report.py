"""Writes ``report.html`` after a run: one file that needs no server, no network and no script."""

import base64
import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner

from icconv_mm.app.evaluation.hook import EvaluationHook
from icconv_mm.app.evaluation.plots import precision_recall_plot, training_plots
from icconv_mm.app.evaluation.results import Evaluation, Record
from icconv_mm.app.runs.config import stored_config
from icconv_mm.app.runs.images import read_image
from icconv_mm.app.runs.thresholds import REPORT, stored_thresholds
from icconv_mm.errors import UserError, printable
from icconv_mm.files import atomic_write, write_json
from icconv_mm.run_folder import configs_beside, last_checkpoint
from icconv_mm.versions import OWN_COMMAND, command_of
from icconv_mm_runtime.drawing import Drawing, draw, drawing_of

_PAGE = 'report.html'
_ROWS = 30  # most classes of a confusion matrix
_LINES = 20  # most classes that are printed
_SIDE = 420  # pixels of the longer side of an image
_CROP = 220
_QUALITY = 80  # of a JPEG


def write_report(
    runner: Runner,
    hook: EvaluationHook,
    name: str,
    *,
    folder: Path | None = None,
    checkpoint: str | None = None,
    budget: float | str | None = None,
    notes: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Path | None:
    """Writes ``report.html`` and ``report.json`` after a run, and prints the results of each class.

    Args:
        runner: The runner.
        hook: The hook that has kept its predictions.
        name: The config's file.
        folder: Folder of the files; by default that of the run.
        checkpoint: The tested checkpoint, whose training has chosen the thresholds if it has a report; None after a
            training.
        budget: The time that the training may take, as given; None for one of a fixed length.
        notes: Messages for the top of the page.
        say: Called with each line.

    Returns:
        The page; None in a process that is not the main one.
    """
    if not is_main_process():
        return None
    folder = folder or Path(runner.work_dir)
    is_test = checkpoint is not None
    checkpoint = checkpoint or hook.checkpoint
    with contextlib.suppress(UserError):  # a report needs no checkpoint
        checkpoint = checkpoint or last_checkpoint(runner.work_dir)
    thresholds = {
        task: stored_thresholds(checkpoint, task, task_meta['classes']) if is_test else None
        for task, task_meta in hook.tasks.items()
    }
    evaluations = hook.evaluations(thresholds)
    if not evaluations and not is_test:
        notes = [*notes, _without_results(hook, folder)]
    if hook.fault is not None:
        notes = [*notes, f'The classes of the dataset are unknown: {hook.fault}.']
    config = _config_text(runner)
    content = dict(
        title=f'{Path(name).stem}: {"test" if is_test else "training"}',
        subtitle=f'{runner.work_dir}, {time.strftime("%Y-%m-%d %H:%M")}',
        notes=[note for note in notes if note],
        summary=_summary(runner, hook, name, checkpoint, is_test),
        commands=[] if checkpoint is None else list(_commands(name, checkpoint, runner, is_test, budget)),
        curves=[] if is_test else training_plots(runner),
        tasks=[
            _section(task, evaluation, hook, is_test, bool(thresholds[task]))
            for task, evaluation in evaluations.items()
        ],
        config_name=Path(name).name,
        config=config,
    )
    page = folder / _PAGE
    with atomic_write(page) as file:
        file.write(_rendered(content).encode(errors='replace'))
    if evaluations:
        tasks = {task: evaluation.as_json() for task, evaluation in evaluations.items()}
        numbers = {'config': name, 'checkpoint': checkpoint, 'images': 'test' if is_test else 'validation'}
        write_json(folder / REPORT, {**numbers, 'images_per_second': hook.speeds, 'tasks': tasks}, indent=1)
    for task, evaluation in evaluations.items():
        for line in _lines(task, evaluation):
            say(printable(line))
    say(printable(f'report: {page} ({page.stat().st_size / 1e6:.1f} MB)'))
    return page


def _rendered(content: Mapping[str, Any]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(Path(__file__).with_suffix('.html').read_text()).render(content)


def _without_results(hook: EvaluationHook, folder: Path) -> str:
    if (folder / REPORT).is_file() and hook.checkpoint is not None:
        return (
            f'The best checkpoint, {Path(hook.checkpoint).name}, is of an earlier part of the run: its test has more.'
        )
    return 'No validation image with annotations was predicted: there are no results by class.'


def _config_text(runner: Runner) -> str:
    saved = Path(runner.work_dir, Path(runner.cfg.filename or '').name)
    return saved.read_text(errors='replace') if saved.is_file() else runner.cfg.pretty_text


def _summary(runner: Runner, hook: EvaluationHook, name: str, checkpoint: str | None, is_test: bool) -> dict[str, str]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    backbone = (runner.cfg.model.get('backbone') or {}).get('type')
    network = ', '.join(str(kind).rpartition('.')[2] for kind in (runner.cfg.model.get('type'), backbone) if kind)
    count = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    device = next((str(parameter.device) for parameter in model.parameters()), 'cpu')
    summary = {'config': name, 'network': f'{network}, {count:.1f} million parameters'}
    if not is_test:
        loop = runner.train_loop
        epochs = f'{loop.epoch} of {loop.max_epochs} epochs, ' if isinstance(loop, EpochBasedTrainLoop) else ''
        batch = loop.dataloader.batch_size or 'several'
        summary['training'] = (
            f'{len(loop.dataloader.dataset)} images, batches of {batch}, {epochs}{loop.iter} of {loop.max_iters} '
            f'iterations, {_duration(time.perf_counter() - hook.started)}'
        )
    if size := runner.cfg.get('size'):
        summary['image size'] = f'{size} pixels'
    if hook.speeds:
        summary['speed'] = '; '.join(f'{what}: {value:.3g} images/s' for what, value in hook.speeds.items())
    if checkpoint and Path(checkpoint).is_file():
        kind = 'checkpoint' if is_test else 'best checkpoint' if hook.checkpoint else 'last checkpoint'
        summary[kind] = f'{checkpoint}, {Path(checkpoint).stat().st_size / 1e6:.1f} MB'
    threads = f', {torch.get_num_threads()} threads' if device == 'cpu' else ''
    summary['machine'] = (
        f'{device}{threads}, {get_world_size()} processes, torch {torch.__version__}, seed {runner.seed}'
    )
    return summary


def _tests_on_validation(cfg: Config) -> bool:
    """Returns whether the images of the test are those of the validation, as where there is no test split."""
    sets = [(cfg.get(f'{split}_dataloader') or {}).get('dataset') for split in ('test', 'val')]
    return None not in sets and sets[0] == sets[1]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f'{minutes // 60} h {minutes % 60} min' if minutes >= 60 else f'{minutes} min {seconds} s'


def _commands(
    name: str, checkpoint: str, runner: Runner, is_test: bool, budget: float | str | None
) -> Iterator[tuple[str, str]]:
    """Yields what a user does next, and its command."""
    before, after = (name,), ()  # the config, which icconv finds beside the checkpoint if it is the only one
    if is_own := OWN_COMMAND is not None:
        before, after = (), () if len(configs_beside(checkpoint, stored_config)[0]) == 1 else ('--config', name)
    predicted = (*before, checkpoint, 'IMAGES', '--out-dir', 'predictions', *after)
    calls = [
        ('Predict images, videos or a camera:', 'infer', predicted),
        ('Export as one file that runs without torch:', 'export', (*before, checkpoint, '--out', 'model.onnx', *after)),
    ]
    if not is_test:
        folder = ('--work-dir', runner.work_dir)
        if not _tests_on_validation(runner.cfg):
            tested = (*before, checkpoint, *(after if is_own else folder))
            calls.append(('Evaluate on the test images:', 'test', tested))
        if runner.train_loop.iter < runner.train_loop.max_iters:
            within = ('--time', budget if isinstance(budget, str) else f'{budget:.1f}s') if budget else ()
            calls.append(('Continue this training:', 'train', (name, *folder, *within, '--resume')))
    for title, tool, arguments in calls:
        yield title, command_of(tool, *arguments).strip('`')


def _lines(task: str, evaluation: Evaluation) -> Iterator[str]:
    """Yields the lines that are printed: metrics of all classes, then of each."""
    chosen = {key: _percent(value) for key, value in evaluation.overall.items() if not _is_detail(key, evaluation)}
    overall = ', '.join(f'{key} {value}' for key, value in (chosen | _as_they_are(evaluation)).items())
    yield f'{task or evaluation.kind or "metrics"}: {overall} ({evaluation.images} images)'
    if evaluation.left_out:
        yield f'  {evaluation.left_out}'
    if not evaluation.tables:
        return
    table = evaluation.tables[-1 if evaluation.kind == 'pose' else 0]
    columns, rows = table.columns, table.rows[evaluation.kind != 'classification' :]  # without the line of all
    for row in rows[:_LINES]:
        shown = [
            f'{key} {_printed(key, value)}'
            for key, value in zip(columns[1:], row[1:])
            if value is not None and not key.startswith('AP ')
        ]
        yield f'  {row[0]}: {", ".join(shown)}'
    if len(rows) > _LINES:
        yield f'  and {len(rows) - _LINES} more in the report'


def _is_detail(key: str, evaluation: Evaluation) -> bool:
    """Returns whether a number is of one class or one size, which the tables have, or a recall beside an AP."""
    name = key.rpartition('/')[2]
    return bool(evaluation.tables) and re.search(r'^AP of |AP[sml]$|\([MLEH]\)$|\bAR\b', name) is not None


def _as_they_are(evaluation: Evaluation) -> dict[str, str]:
    return {key: '-' if value is None else f'{value:.4g}' for key, value in evaluation.others.items()}


def _printed(key: str, value: Any) -> str:
    return str(value) if isinstance(value, (int, str)) else f'{value:.2f}' if key == 'threshold' else _percent(value)


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.1f}'


# --- sections of the page ---


def _section(task: str, evaluation: Evaluation, hook: EvaluationHook, is_test: bool, is_given: bool) -> SimpleNamespace:
    described = {**hook.tasks[task], 'thresholds': evaluation.used}
    images = f'{evaluation.images} {"test" if is_test else "validation"} image{"" if evaluation.images == 1 else "s"}'
    classes = f'{len(evaluation.names)} class{"" if len(evaluation.names) == 1 else "es"}'
    is_of_objects = evaluation.kind in ('detection', 'instance')
    units = {
        'pose': 'keypoints near their annotation', 'semantic': 'pixels right', 'classification': 'score of its class',
    }  # fmt: skip
    caption = units.get(evaluation.kind, 'F1 of the image')
    note = f'Annotations on the left, predictions on the right; {caption} in the caption.'
    return SimpleNamespace(
        title=(task or evaluation.kind or 'metrics').capitalize(),
        prefix=f'{task} ' if task else '',
        subtitle=f'{images}, {classes}',
        overall=evaluation.overall,
        others=_as_they_are(evaluation),
        left_out=evaluation.left_out,
        tables=[
            SimpleNamespace(**vars(table), is_fraction=not table.title.startswith('keypoints'))
            for table in evaluation.tables
        ],
        threshold_note=_threshold_note(evaluation, is_test, is_given),
        curve=precision_recall_plot(evaluation) if evaluation.curves else None,
        confusion=_confusion(evaluation) if evaluation.confusion is not None and evaluation.confusion.any() else None,
        worst=list(_worst(evaluation, described)),
        worst_note=note,
        unannotated=list(_unannotated(evaluation, described)),
        unannotated_title='Annotations that look missing' if is_of_objects else 'Labels that look wrong',
        unannotated_note='The predictions with the highest scores that no annotation is near.'
        if is_of_objects
        else 'The wrong predictions with the highest scores.',
    )


def _threshold_note(evaluation: Evaluation, is_test: bool, is_given: bool) -> str:
    if not evaluation.used:
        return ''
    what = f'largest F1 at {"OKS" if evaluation.kind == "pose" else "IoU"} {evaluation.iou:g}'
    if is_test:
        source = 'The validation of the training chose the thresholds of the matrix' if is_given else what.capitalize()
        return f'Threshold: {what} on these images. ' + (f'{source}.' if is_given else '')
    return (
        f'Threshold: {what} on these images. Drawings and exported files use it by default; metrics and '
        'predictions.json keep all scores.'
    )


def _confusion(evaluation: Evaluation) -> SimpleNamespace:
    """Returns the shares of each row; of many classes, those with the most mistakes."""
    counts = evaluation.confusion
    told, predicted = counts.sum(1), counts.sum(0)
    there = np.flatnonzero(told + predicted)
    mistakes = (told + predicted - 2 * counts.diagonal())[there]
    kept = np.sort(there[np.argsort(-mistakes, kind='stable')[:_ROWS]])
    shares = counts / np.maximum(told[:, None], 1)
    names = evaluation.labels
    note = 'Shares of each row, in %. '
    if evaluation.used:
        limits = sorted({round(index, 2) for index in evaluation.used})
        at = (
            f'{limits[0]:.2f}'
            if len(limits) == 1
            else f'the threshold of each class, {limits[0]:.2f} to {limits[-1]:.2f}'
        )
        note += f'Predictions with a score of at least {at}; boxes are matched at IoU {evaluation.iou:g}. '
    if len(kept) < len(there):
        note += f'The {len(kept)} classes with the most mistakes of {len(there)}.'
    rows = [(names[i], [(float(shares[i, k]), int(counts[i, k])) for k in kept]) for i in kept]
    return SimpleNamespace(names=[names[k] for k in kept], rows=rows, note=note)


def _worst(evaluation: Evaluation, described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for record in evaluation.worst:
        if record.score >= 1 or not record.truth:
            continue
        image = _image(record)
        if image is not None:
            halves = [
                draw(_enlarged(image, _SIDE), _sized(drawing, record), _SIDE)
                for drawing in (_truth(described, record), drawing_of(described, _decoded(record.predictions)))
            ]
            gap = np.full((halves[0].shape[0], 6, 3), 128, np.uint8)
            yield _uri(np.hstack([halves[0], gap, halves[1]])), f'{Path(record.path).name}: {record.score:.0%}'


def _unannotated(evaluation: Evaluation, described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for record, i in evaluation.unannotated:
        if (image := _image(record)) is None:
            continue
        if evaluation.kind == 'classification':
            score, label = float(record.predictions['scores'][i]), int(record.truth['label'])
            words = f'{evaluation.names[i]} {score:.2f}, labelled {evaluation.names[label]}'
            yield _uri(draw(image, Drawing(), _CROP)), f'{Path(record.path).name}: {words}'
            continue
        arrays = record.predictions.items()
        one = {key: values[i : i + 1] for key, values in arrays if key in ('boxes', 'scores', 'labels')}
        label, score = int(one['labels'][0]), float(one['scores'][0])
        drawing = drawing_of(described, one, 0.0)
        drawing.objects[0].text = ''
        shown = draw(_enlarged(image, 800), _sized(drawing, record))
        uri = _uri(_cropped(shown, one['boxes'][0] * (shown.shape[1] / record.shape[1])))
        yield uri, f'{evaluation.names[label]} {score:.2f}, {Path(record.path).name}'


def _image(record: Record) -> np.ndarray | None:
    try:
        return read_image(Path(record.path), 1600)
    except (OSError, ValueError):  # it is gone
        return None


def _enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """Returns an image whose longer side has at least so many pixels, as text would hide a smaller one."""
    scale = side / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC) if scale > 1 else image


def _sized(drawing: Drawing, record: Record) -> Drawing:
    drawing.shape = record.shape
    return drawing


def _cropped(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Returns the square around a box with as much around it, of a fixed size."""
    center, side = (box[:2] + box[2:]) / 2, max(2 * float((box[2:] - box[:2]).max()), 32.0)
    side = min(side, float(min(image.shape[:2])))
    low = np.clip(center - side / 2, 0, np.array(image.shape[1::-1]) - side).round().astype(int)
    part = image[low[1] : low[1] + max(1, round(side)), low[0] : low[0] + max(1, round(side))]
    return cv2.resize(part, (_CROP, _CROP), interpolation=cv2.INTER_AREA if side > _CROP else cv2.INTER_CUBIC)


def _decoded(side: Mapping[str, Any]) -> dict[str, Any]:
    """Returns predictions or annotations with masks of pixels."""
    if 'masks' not in side:
        return dict(side)
    from pycocotools.mask import decode

    return {**side, 'masks': [decode(mask).astype(bool) for mask in side['masks']]}


def _truth(described: Mapping[str, Any], record: Record) -> Drawing:
    truth = _decoded(record.truth)
    if 'label' in truth:
        truth['labels'] = [truth['label']]
    if 'visible' in truth:
        truth['keypoint_scores'] = (np.asarray(truth['visible']) > 0).astype(float)
        truth['labels'] = np.zeros(len(truth['visible']), int)
        del truth['boxes']
    drawing = drawing_of(described, truth)
    for item, is_ignored in zip(drawing.objects, truth.get('ignored', ())):
        item.is_hatched = bool(is_ignored) and item.keypoints is None
    return drawing


def _uri(image: np.ndarray) -> str:
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()
