"""Shows a dataset as the model sees it: images after the config's transforms, with their annotations."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.visualization import Visualizer

from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.images import write_image
from icconv_mm.app.runs.prepare import Browsing
from icconv_mm_runtime.drawing import draw

_LEAST = 512  # pixels of a drawn image: on a smaller one, text would cover the objects


def browse(
    cfg: TaskRun | Config | str | Path,
    out_dir: str | None = None,
    *,
    phase: str = 'train',
    count: int | None = None,
    show: bool = False,
    wait_time: float = 2.0,
    progress: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> list[Path]:
    """Draws the annotations of a dataset on its images.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config, changed in place, or its file.
        out_dir: Folder for the images; None writes none.
        phase: The dataset to show: ``'train'``, ``'val'`` or ``'test'``.
        count: Number of images; all by default.
        show: Whether to show them on screen, each for ``wait_time`` seconds.
        wait_time: Seconds per image.
        progress: Wraps the sequence of indices, as ``rich.progress.track`` does.

    Returns:
        The files written.

    Raises:
        InputError, DatasetError, ImageFileError: Bad input, named in the message.
    """
    run = begin(cfg, purpose=Browsing(phase))
    task, dataset = run.adapter, run.build_dataset(phase)
    task.check(None, dataset, run.datasets[phase][0].location, training=False)
    window = Visualizer() if show else None
    written = []
    for i in progress(range(len(dataset) if count is None else min(count, len(dataset)))):
        item = dataset[i]
        sample = item['data_samples']
        inputs = item['inputs'][0] if isinstance(item['inputs'], list) else item['inputs']  # several test scales
        image = inputs.permute(1, 2, 0).numpy().clip(0, 255).astype(np.uint8)
        content = task.annotations(sample, dataset.metainfo)
        content.shape = content.shape or image.shape[:2]
        factor = -(-_LEAST // max(image.shape[:2]))
        drawn = draw(image.repeat(factor, 0).repeat(factor, 1), content)
        name = f'{i:05d}_{Path(sample.img_path).stem}.jpg'
        if out_dir is not None:
            written.append(Path(out_dir, name))
            write_image(drawn, written[-1])
        if window is not None:
            window.show(np.ascontiguousarray(drawn[..., ::-1]), win_name=name, wait_time=wait_time)
    return written
