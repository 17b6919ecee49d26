"""Predicts images, videos and cameras with a checkpoint or an exported file."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.config import Config

from icconv_mm.app.prediction.image_run import predict_images
from icconv_mm.app.prediction.model import open_network
from icconv_mm.app.prediction.options import Options
from icconv_mm.app.prediction.video_run import predict_video
from icconv_mm.app.runs.begin import TaskRun
from icconv_mm.app.runs.images import Video, is_video, opened_inputs


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
    given = device, score_thr, json_score_thr, batch_size, palette, ann_file, draw, tile, workers
    options = Options(checkpoint, *given, to, copy, shard, pick, track, resume, progress)
    options.check_for(inputs, is_video(inputs))
    with opened_inputs(inputs) as (source, is_fetched):
        network = open_network(checkpoint, cfg, device, palette)
        if isinstance(source, Video):
            return predict_video(network, source, Path(out_dir), options)
        return predict_images(network, source, Path(out_dir), replace(options, copy=copy or is_fetched))
