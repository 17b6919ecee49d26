"""Predicts images, draws the predictions, and writes them as COCO results with the image and category ids."""

import hashlib
import itertools
import json
import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from mmengine.logging import print_log
from mmengine.runner import load_state_dict

from icconv_mm._version import __version__
from icconv_mm.app.prediction.coco_results import CocoResults, results_of, tracked, write_parts
from icconv_mm.app.prediction.exported import ExportedPredictor
from icconv_mm.app.prediction.pick import ImageFeatures, check_pick, pick_images, uncertainty_of, write_picks
from icconv_mm.app.prediction.pre_annotations import folders_for, write_pre_annotations
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.images import (
    InputImage,
    Video,
    VideoWriter,
    drawn_names,
    fetch_input,
    find_inputs,
    is_video,
    load_input,
    read_image,
    write_image,
)
from icconv_mm.app.runs.prepare import Predicting
from icconv_mm.app.runs.thresholds import stored_thresholds
from icconv_mm.arguments import check_scores
from icconv_mm.checkpoints import reading
from icconv_mm.checkpoints.matching import check_fits, state_dict_of
from icconv_mm.errors import ArgumentError, InputError, UserError, message_of, naming
from icconv_mm.files import is_exported, require_file
from icconv_mm_runtime.drawing import LONGEST, draw
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.files import write_together
from icconv_mm_runtime.records import ResultLog, ended_by_sigterm
from icconv_mm_runtime.results import Predictions
from icconv_mm_runtime.tiling import JOINED, tile_corners

_LEAST_TILE = 32  # pixels; of smaller ones an image has thousands


class Predictor:
    """Predicts image files with a model of any task.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config, changed in place, or its file.
        checkpoint: File with the weights of the model, which must fit in every key.
        device: Device of the model, such as ``'cuda:0'``; by default an accelerator if there is one.
        palette: One colour (R, G, B) per class for drawing; by default those of the checkpoint or the config.

    Attributes:
        task: The adapter of the task.
        model: The model in evaluation mode.
        dataset_meta: Class names and colours, from the checkpoint, else from the config.

    Raises:
        MissingFileError: The checkpoint or the config does not exist.
        InputError, CheckpointError, ArchitectureMismatchError: Bad input, named in the message.
    """

    def __init__(
        self, cfg: TaskRun | Config | str | Path, checkpoint: str, device: str | None = None, palette: Any = None
    ) -> None:
        purpose = Predicting()
        run = begin(cfg, checkpoint, purpose)
        self.task = run.adapter
        content = reading.read(checkpoint)
        self.model = run.build_model()
        transforms = run.inference_transforms()
        self._oriented = not any('ignore_orientation' in str(each.get('color_type')) for each in transforms)
        self.pipeline = run.build_pipeline()
        check_fits(self.model, content, checkpoint)
        load_state_dict(self.model, state_dict_of(content))
        with naming(checkpoint):
            self.dataset_meta = self.task.dataset_meta(content, run.datasets)
        for name, (adapter, meta) in self.task.parts(self.dataset_meta).items():
            adapter.check_names(self.model.tasks[name] if name else self.model, meta, checkpoint)
            if thresholds := stored_thresholds(checkpoint, name, adapter.class_names(meta)):
                meta['thresholds'] = thresholds
        if palette is not None:
            if '' not in self.task.parts(self.dataset_meta):
                raise ArgumentError('palette', 'a network for several tasks takes none: each task has its own colours')
            self.dataset_meta['palette'] = palette
        self.model.to(_device(device)).eval()
        self.model.dataset_meta = self.dataset_meta
        self._features: ImageFeatures | None = None

    def keep_features(self) -> None:
        """Lets data samples have ``features`` from now on: the mean of the backbone's last map, [channels].

        Raises:
            ArgumentError: The model has no backbone.
        """
        self._features = self._features or ImageFeatures(self.model)

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the class names by label."""
        return self.task.class_names(self.dataset_meta)

    def predict(self, paths: Sequence[str | Path | InputImage], batch_size: int = 1) -> Iterator[tuple[str, Any]]:
        """Yields each path and the model's data sample for it.

        Raises:
            ImageFileError: A file is missing, truncated or no image.
            ArgumentError: The batch size is less than 1.
        """
        for batch in _batches(paths, batch_size):
            for given, sample in zip(batch, self._forward([self._load(each) for each in batch]), strict=True):
                yield _name_of(given), sample

    def try_predict(
        self, paths: Iterable[str | Path | InputImage], batch_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[str, Any]]:
        """Yields the same as :meth:`predict`, but an exception instead of the data sample if an image fails.

        Args:
            paths: The images.
            batch_size: Images per forward pass.
            workers: Threads that read images ahead.
        """
        read_ahead = _ahead(lambda each: (each, _attempt(self._load, each)), paths, workers)
        for pairs in _batches(read_ahead, batch_size):
            batch, inputs = zip(*pairs)
            loaded = [each for each in inputs if not isinstance(each, Exception)]
            samples = _attempt(self._forward, loaded) if loaded else []
            if isinstance(samples, Exception):  # finds the failing image
                samples = [_attempt(lambda each: self._forward([each])[0], each) for each in loaded]
            left = iter(samples)
            for given, each in zip(batch, inputs):
                yield _name_of(given), each if isinstance(each, Exception) else next(left)

    def predict_tiles(self, path: Path, tile: int) -> Any:
        """Returns the predictions for an image that is cut into overlapping squares of ``tile`` pixels.

        Raises:
            NotSupportedError: The predictions of the task cannot be merged.
        """
        parts, image = [], read_image(path, oriented=self._oriented)
        for top, left in tile_corners(image.shape[:2], tile):
            piece = np.ascontiguousarray(image[top : top + tile, left : left + tile])
            sample = self._forward([self._load(InputImage(Path('tile'), piece))])[0]
            parts.append((sample, (top, left)))
        return self.task.joined(parts, image.shape[:2], tile)

    def _load(self, given: str | Path | InputImage) -> tuple[dict, tuple[int, int] | None]:
        """Returns the pipeline's result for an image, and the original size if the image was reduced."""
        image = given if isinstance(given, InputImage) else load_input(Path(given), self._oriented)
        results = self.task.model_input(str(image.path), self.dataset_meta)
        if image.image is not None:
            results['img'] = image.image
        return self.pipeline(results), image.size

    def _forward(self, inputs: list[tuple[dict, tuple[int, int] | None]]) -> list[Any]:
        if self._features is not None:
            self._features.clear()
        with torch.no_grad():
            samples = self.model.test_step(pseudo_collate([packed for packed, _ in inputs]))
        if self._features is not None:
            for sample, vector in zip(samples, self._features.take(len(inputs)), strict=True):
                sample.set_metainfo({'features': vector.numpy()})
        for sample, (_, size) in zip(samples, inputs):
            if size is not None:
                self.task.enlarge(sample, size)
        return samples

    def pixels(self, given: Path | InputImage, longest: int | None = None) -> np.ndarray:
        """Returns an image [H, W, 3], BGR, that the predictions refer to, reduced if ``longest`` is given."""
        return given.image if isinstance(given, InputImage) else read_image(given, longest, self._oriented)

    def arrays(self, sample: Any, size: tuple[int, int]) -> dict[str, Predictions]:
        """Returns the predictions of each task for an image of ``size``, as the runtime of exported files has them."""
        found = {}
        for name, (adapter, _) in self.task.parts(self.dataset_meta).items():
            found[name] = adapter.predictions(sample.get(name) if name else sample)
            for key in {'masks', 'seg_map'} & found[name].keys():  # smaller if a large image was reduced
                found[name][key] = resized_labels(found[name][key], size)
            if (labels := found[name].get('seg_map')) is not None:
                found[name]['seg_map'] = labels.astype(np.uint8 if labels.max() < 256 else np.int32)
        return found

    def drawn(self, given: Path | InputImage, sample: Any, score_thr: float | None = None) -> np.ndarray:
        """Returns the image with its predictions [h, w, 3], BGR, with a longer side of at most 4096 pixels."""
        image = self.pixels(given, LONGEST)
        content = self.task.drawing(sample, self.dataset_meta, score_thr)
        content.shape = tuple(sample.ori_shape[:2])
        return draw(image, content)

    def draw(self, path: str | Path, sample: Any, out_file: str | Path, score_thr: float | None = None) -> None:
        """Writes the image at ``path`` with its predictions to ``out_file``: JPEG, PNG, BMP, TIFF or WebP."""
        write_image(self.drawn(Path(path), sample, score_thr), Path(out_file))


def _device(given: str | None) -> torch.device:
    """Returns the device of a name; an accelerator, if there is one, without a name.

    Raises:
        ArgumentError: It cannot be used.
    """
    if given is None:
        return torch.device(get_device())
    try:
        device = torch.device(given)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter without a driver
        raise ArgumentError('device', f'{given}: {message_of(error).splitlines()[0]}') from None
    return device


def resized_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns masks [n, h, w] or a segmentation map [h, w] in another size, by the nearest pixel."""
    if labels.shape[-2:] == tuple(size):
        return labels
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, labels.shape[-2:]))
    return labels[..., rows[:, None], columns]


def _name_of(given: str | Path | InputImage) -> str:
    return str(given.path if isinstance(given, InputImage) else given)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ArgumentError('batch_size', f'expected 1 or more, got {batch_size}')


def _batches(paths: Iterable[Any], batch_size: int) -> Iterator[list[Any]]:
    _check_batch_size(batch_size)
    left = iter(paths)
    while batch := list(itertools.islice(left, batch_size)):
        yield batch


def _ahead(function: Callable[[Any], Any], items: Iterable[Any], workers: int) -> Iterator[Any]:
    """Yields a function's result for each item, in order: computed ahead by threads, or on demand without workers."""
    if workers < 0:
        raise ArgumentError('workers', f'expected 0 or more, got {workers}')
    if workers == 0:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def infer(
    cfg: TaskRun | Config | str | Path | None,
    checkpoint: str,
    inputs: str,
    out_dir: str,
    *,
    device: str | None = None,
    score_thr: float | None = None,
    json_score_thr: float = 0.0,
    batch_size: int = 1,
    palette: Any = None,
    ann_file: str | None = None,
    draw: bool = True,
    tile: int | None = None,
    workers: int = 1,
    to: str | None = None,
    copy: bool = False,
    shard: tuple[int, int] | None = None,
    pick: int | None = None,
    track: bool = False,
    resume: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict[str, Path]:
    """Predicts images, videos and cameras.

    Writes below ``out_dir``: ``vis/`` (images with the predictions drawn), ``predictions.json`` (a COCO results file:
    a list of detections, keypoints, or class masks of semantic segmentation) and ``images.json`` (the ``images`` and
    ``categories`` that the results refer to, so that ``COCO('images.json').loadRes('predictions.json')`` works). A
    network for several tasks writes both for each, as ``predictions.TASK.json`` and ``images.TASK.json``.

    Args:
        cfg: As for :class:`Predictor`; None with an exported file.
        checkpoint: File with the weights of the model, or an exported file.
        inputs: The images: a file, a folder, a glob pattern, a URL; a video (MP4, AVI, GIF, ...), a stream or the
            number of a camera, whose drawn frames become an MP4. HEIC needs pillow-heif.
        out_dir: Folder of the results.
        device: Device of the model, as for :class:`Predictor`.
        score_thr: Least score of predictions that are drawn; by default the best of each class on the validation
            images (``report.json`` beside the checkpoint), else 0.3.
        json_score_thr: Least score of predictions that are written to the JSON file.
        batch_size: Images per forward pass.
        palette: Colours of the classes, as for :class:`Predictor`.
        ann_file: A COCO annotation file whose ids the results use, so that they can be evaluated against it; by default
            images are numbered from 1 and a category is its label plus 1.
        draw: Whether to write images.
        tile: Cuts images into overlapping squares of so many pixels, for small objects in large images: boxes and
            segmentation maps.
        workers: Threads that read the next images, and as many that draw the last ones, while the network computes;
            0 for one after the other.
        to: Also writes the objects that are drawn as annotations to correct in another tool, into the folder ``to``:
            ``'coco'``, ``'yolo'``, ``'labelstudio'`` or ``'cvat'``.
        copy: Whether ``to`` copies the images; else they are linked.
        shard: Number of this process, from 1, and how many share the images out: it predicts its part, and the one
            that ends last writes the files of all.
        pick: How many images are picked to be annotated next, by the network's uncertainty and by how much they
            differ: their paths in ``pick.txt``, and a page of them, ``pick.html``. ``to`` then writes these alone.
        track: Whether the objects of a video get numbers that stay from frame to frame, by ByteTrack of the library
            trackers: drawn, and as ``track_id`` in the results.
        resume: Whether to go on where a run of equal arguments was ended, by Ctrl-C, SIGTERM or otherwise.
        progress: Wraps the list of images or the video, as ``rich.progress.track`` does.

    Returns:
        The written paths, by name: ``vis``, ``predictions``, ``images``, followed by ``.TASK`` for several tasks, the
        value of ``to``, ``pick`` and ``pick.html``.

    Raises:
        FailedImagesError: Some images cannot be read or predicted; the results of the others are written.
        InputError, ...: As :class:`Predictor`.
    """
    _check_numbers(score_thr, json_score_thr, batch_size, tile)
    if pick is not None:
        check_pick(pick, checkpoint, tile, shard)
    with tempfile.TemporaryDirectory(prefix='icconv_mm_') as fetched:
        if inputs.startswith(('http://', 'https://')) and is_video(inputs.split('?')[0]):
            inputs = str(fetch_input(inputs, Path(fetched)))
        video = Video(inputs) if is_video(inputs) else None
        if video is not None:
            for name, value in (
                *(('ann_file', ann_file), ('tile', tile), ('to', to), ('shard', shard), ('pick', pick)),
                ('resume', resume or None),
            ):
                if value is not None:
                    raise ArgumentError(name, 'is for images, not for a video')
        elif track:
            raise ArgumentError('track', f'is for a video, which {inputs} is not')
        paths = [] if video else find_inputs(inputs, fetched)
        predictor = _predictor(cfg, checkpoint, device, palette)
        if pick is not None:
            predictor.keep_features()
        parts = results_of(predictor.task, predictor.dataset_meta, paths, ann_file)
        if tile is not None and not {part.kind for part in parts} <= JOINED.keys():
            raise ArgumentError('tile', 'only boxes and segmentation maps are put together again')
        out = Path(out_dir)
        folders = folders_for(to, parts, out) if to else {}
        if video:
            parts = tracked(parts, video.rate, score_thr) if track else parts
            options = score_thr, json_score_thr, batch_size, draw, progress
            return _predict_video(predictor, video, parts, out, *options)
        copy = copy or Path(fetched) in paths[0].parents  # a link would soon lead nowhere
        names = drawn_names(paths)
        drawing = [draw, score_thr, palette, to, pick]
        settings = [*drawing, json_score_thr, ann_file, tile, batch_size, *_settings_of(cfg, checkpoint, ann_file)]
        with naming(str(out), OSError, RuntimeInputError):
            log = ResultLog(out, settings, paths, shard or (1, 1), resume)
        if resume and not log.done and log.has_others:
            what = 'what an earlier run left there was of other images, weights or options: this one begins anew'
            print_log(f'{out / ".results"}: {what}', 'current', logging.WARNING)
        run = _ImageRun(predictor, parts, log, out, names if draw else {}, score_thr, json_score_thr, folders, pick)
        with ended_by_sigterm():
            failures = run.predict(paths, tile, batch_size, workers, progress)
            written = run.write(to, copy, not failures)
    if failures:
        raise FailedImagesError(failures, len(log.share()), out)
    return written


@dataclass
class _ImageRun:
    """Predicts images, and keeps their results until those of all are there.

    Attributes:
        names: The file name of each drawn image; empty if none is drawn.
        folders: Folders of annotations for another tool, by task.
        pick: How many images are picked to be annotated.
    """

    predictor: Any
    parts: Sequence[CocoResults]
    log: ResultLog
    out: Path
    names: Mapping[Path, str]
    score_thr: float | None
    json_score_thr: float
    folders: Mapping[str, Path]
    pick: int | None

    def predict(
        self, paths: Sequence[Path], tile: int | None, batch_size: int, workers: int, progress: Callable
    ) -> dict[Path, Exception]:
        """Adds the results of the images of this process to the log; returns the exceptions of those that fail."""
        failures: dict[Path, Exception] = {}
        places = {path: place for place, path in enumerate(self.log.share()) if str(path) not in self.log.done}
        if tile is None:
            samples = self.predictor.try_predict(list(places), batch_size, workers)
        else:
            samples = ((path, _attempt(lambda each: self.predictor.predict_tiles(each, tile), path)) for path in places)
        try:
            for path, sample in _ahead(self._drawn, zip(progress(list(places)), samples), workers):
                if isinstance(sample, Exception):
                    failures[path] = sample
                else:
                    row = self._row(path, sample)
                    with naming(str(self.out), OSError):
                        self.log.add(places[path], path, row)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and self.log.count == 1 and any(self.log.rows()):
                write_parts(self.out, self.parts, self.log.rows)
                done = sum(1 for _ in self.log.rows())
                what = f'only the results of {done} of {len(paths)} images are in {self.out}; --resume goes on'
                print_log(what, 'current')
            self.log.close(is_written=False)
            raise
        if len(failures) == len(places) > 0 and not any(isinstance(error, UserError) for error in failures.values()):
            self.log.close(is_written=False)
            raise next(iter(failures.values()))  # not the fault of the images
        return failures

    def _drawn(self, found: tuple[Path, tuple[str, Any]]) -> tuple[Path, Any]:
        path, (_, sample) = found
        if self.names and not isinstance(sample, Exception):
            file = self.out / 'vis' / self.names[path]
            fault = _attempt(lambda each: self.predictor.draw(path, each, file, self.score_thr), sample)
            return path, sample if fault is None else fault
        return path, sample

    def _row(self, path: Path, sample: Any) -> dict[str, Any]:
        """Returns what is kept of an image, as JSON can hold it."""
        image = {'id': self.parts[0].image_ids[path], **_about(path.name, sample)}
        row = {'image': image, 'records': {}, 'drawn': {}}
        for part in self.parts:
            row['records'][part.name] = part.records(path, sample, self.json_score_thr)
            if part.name in self.folders:
                row['drawn'][part.name] = part.drawn(path, sample, self.score_thr)
        if self.pick is not None:
            unsure = uncertainty_of({part.name: part.adapter for part in self.parts}, sample)
            row |= {'uncertainty': float(unsure), 'features': np.asarray(sample.features, float).tolist()}
        return row

    def write(self, to: str | None, copy: bool, is_complete: bool) -> dict[str, Path]:
        """Writes the files of all images if this process is the last one; returns their paths."""
        written = {'vis': self.out / 'vis'} if self.names and any(self.log.rows()) else {}
        is_last = False
        try:
            if not (is_last := self.log.finish(is_complete)):
                there = f'{self.log.count_there()} of {self.log.count} parts are there'
                print_log(f'{there}; the last one writes the files', 'current')
                return written
            if any(self.log.rows()):
                written |= write_parts(self.out, self.parts, self.log.rows) | self._write_others(to, copy)
        finally:
            self.log.close(is_last)
        return written

    def _write_others(self, to: str | None, copy: bool) -> dict[str, Path]:
        """Writes the picked images and the annotations for another tool."""
        written, rows = {}, self.log.rows
        if self.pick is not None:
            unsure = {Path(row['path']): (row['uncertainty'], np.array(row['features'])) for row in self.log.rows()}
            chosen = [list(unsure)[place] for place in pick_images(*map(np.stack, zip(*unsure.values())), self.pick)]
            again = zip(chosen, self.predictor.predict(chosen), strict=True)
            drawings = (self.predictor.drawn(path, sample, self.score_thr) for path, (_, sample) in again)
            written |= write_picks(self.out, [(path, unsure[path][0]) for path in chosen], drawings)
            picked = {str(path): place for place, path in enumerate(chosen)}
            kept = sorted((row for row in rows() if row['path'] in picked), key=lambda row: picked[row['path']])
            rows = partial(iter, kept)
        for part in self.parts:
            folder = self.folders.get(part.name)
            if folder is not None and write_pre_annotations(to, part, rows, folder, copy):
                written[folder.name] = folder
        return written


def _settings_of(cfg: Any, checkpoint: str, ann_file: str | None) -> list[str]:
    """Returns what predictions depend on in files: the weights, the ids, and model and pipeline of a config."""
    parts = {} if cfg is None else {key: begin(cfg).cfg.get(key) for key in ('model', 'test_dataloader')}
    whole = hashlib.sha256(__version__.encode())
    # the second one: the weights of OpenVINO's format
    for path in (Path(checkpoint), Path(checkpoint).with_suffix('.bin'), *([Path(ann_file)] if ann_file else ())):
        if path.is_file():
            with open(path, 'rb') as file:
                for block in iter(lambda: file.read(1 << 20), b''):
                    whole.update(block)
    return [json.dumps(parts, default=lambda value: type(value).__name__, sort_keys=True), whole.hexdigest()]


def _check_numbers(score_thr: float | None, json_score_thr: float, batch_size: int, tile: int | None) -> None:
    check_scores(score_thr=score_thr, json_score_thr=json_score_thr)
    _check_batch_size(batch_size)
    if tile is not None and tile < _LEAST_TILE:
        raise ArgumentError('tile', f'expected {_LEAST_TILE} pixels or more, got {tile}')


def _predictor(cfg: Any, checkpoint: str, device: str | None, palette: Any) -> 'Predictor | ExportedPredictor':
    if not is_exported(checkpoint):
        return Predictor(cfg, checkpoint, device=device, palette=palette)
    if palette is not None:
        raise ArgumentError('palette', f'{checkpoint} is an exported file, which has its own colours')
    require_file(checkpoint, 'checkpoint')
    return ExportedPredictor(checkpoint, device)


def _about(name: str, sample: Any) -> dict[str, Any]:
    height, width = (int(side) for side in sample.ori_shape[:2])
    return {'file_name': name, 'width': width, 'height': height}


def _predict_video(
    predictor: Predictor,
    video: Video,
    parts: Sequence[CocoResults],
    out: Path,
    score_thr: float | None,
    json_score_thr: float,
    batch_size: int,
    draw: bool,
    progress: Callable[[Iterable[InputImage]], Iterable[InputImage]],
) -> dict[str, Path]:
    """Predicts the frames of a video, numbered from 1, and writes a video of the drawn ones. Ctrl-C ends a camera."""
    log, file = ResultLog(out, [video.name]), f'{video.name}.mp4'
    with ExitStack() as closing:
        closing.callback(log.discard)
        writer = VideoWriter(closing.enter_context(write_together(out, [file])) / file, video.rate) if draw else None
        count = 0
        try:
            with ended_by_sigterm():
                for batch in _batches(progress(video), batch_size):
                    for frame, (_, sample) in zip(batch, predictor.predict(batch, batch_size)):
                        image = {'id': count + 1, **_about(frame.path.name, sample)}
                        records = {}
                        for part in parts:
                            part.image_ids[frame.path] = count + 1
                            records[part.name] = part.records(frame.path, sample, json_score_thr)
                            del part.image_ids[frame.path]
                        log.add(count, frame.path, {'image': image, 'records': records})
                        count += 1
                        if writer:
                            writer.add(predictor.drawn(frame, sample, score_thr))
        except KeyboardInterrupt:
            print_log(f'ended after {count} frames', 'current')
        finally:
            if writer:
                writer.close()
        if not count:
            raise InputError(f'{video.name}: no frame can be read')
        written = {'vis': out / file} if draw else {}
        written |= write_parts(out, parts, log.rows)
    return written


class FailedImagesError(UserError):
    """Raised if some images could not be read or predicted; the results of the others are written.

    Attributes:
        failures: The exception of each image.
    """

    def __init__(self, failures: Mapping[Path, Exception], total: int, out: Path) -> None:
        texts = {path: ' '.join(message_of(error).split()) for path, error in failures.items()}
        lines = [text if text.startswith(str(path)) else f'{path}: {text}' for path, text in texts.items()]
        rest = f'{len(lines)} of {total} images failed; the results of the others are in {out}:'
        super().__init__('\n'.join([rest, *(f'  {line}' for line in lines)]) if total > 1 else lines[0])
        self.failures = dict(failures)


def _attempt(function: Callable[[Any], Any], argument: Any) -> Any:
    """Returns a function's result or its exception: for an unusual image size, libraries can raise any."""
    try:
        return function(argument)
    except Exception as error:
        return error
