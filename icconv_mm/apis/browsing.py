"""A look at what a model is trained on: images after the config's transforms, with their annotations."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from icconv_mm.apis.config import as_config
from icconv_mm.apis.datasets import build_dataset
from icconv_mm.apis.preparation import prepare
from icconv_mm.datasets.checks import check_paths
from icconv_mm.errors import InputError


def browse(
    cfg: Config | str | Path,
    out_dir: str | None = None,
    *,
    phase: str = 'train',
    count: int | None = None,
    show: bool = False,
    wait_time: float = 2.0,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[Path]:
    """Draw the annotations of a dataset on its images.

    Args:
        cfg: A config, which is changed in place, or its file.
        out_dir: Folder for the images; None writes none.
        phase: The dataset to show: ``'train'``, ``'val'`` or ``'test'``.
        count: Number of images; all by default.
        show: Show them on screen, each for ``wait_time`` seconds.
        wait_time: Seconds.
        progress: Wraps the sequence of indices, as ``rich.progress.track`` does.

    Returns:
        The files written.

    Raises:
        InputError, DatasetError, ImageFileError: Bad input, named in the message.
    """
    cfg = as_config(cfg)
    task = prepare(cfg)
    init_default_scope(task.library)
    where = f'{phase}_dataloader'
    if not cfg.get(where):
        raise InputError(f'{cfg.filename}: no {where}')
    settings = cfg[where].dataset
    check_paths(settings, f'{where}.dataset')
    dataset = build_dataset(lambda: DATASETS.build(settings), settings, task, f'{where}.dataset')
    visualizer = task.visualizer(cfg, dataset.metainfo)
    written = []
    for i in progress(range(len(dataset) if count is None else min(count, len(dataset)))):
        item = dataset[i]
        sample = item['data_samples']
        name = f'{i:05d}_{Path(sample.img_path).stem}.jpg'
        out_file = None if out_dir is None else str(Path(out_dir, name))
        options = dict(out_file=out_file, show=show, wait_time=wait_time)
        task.draw_annotations(visualizer, _rgb(item['inputs']), sample, **options)
        if out_file is not None:
            written.append(Path(out_file))
    return written


def _rgb(inputs) -> np.ndarray:
    """A packed image [3, H, W] in BGR, as mmcv loads it, to [H, W, 3] in RGB."""
    inputs = inputs[0] if isinstance(inputs, list) else inputs  # an image at several test scales
    image = inputs.permute(1, 2, 0).numpy()[..., ::-1]
    return np.ascontiguousarray(image.clip(0, 255).astype(np.uint8))
