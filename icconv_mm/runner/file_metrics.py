"""The metrics of an exported file beside those of its model, on the test dataset of the config."""

import tempfile
from functools import partial
from typing import Any

from mmengine.config import Config
from torch import nn

from icconv_mm.export.comparison import put_into
from icconv_mm.runner.boundary import boundary
from icconv_mm.runner.prepare import prepare_test
from icconv_mm.runner.train import build_runner
from icconv_mm_runtime import Session


def compare_metrics(cfg: Config, checkpoint: str, session: Session) -> dict[str, dict[str, float]]:
    """Test a model, and then its file in its place.

    Args:
        cfg: The config, which is changed in place.
        checkpoint: File with the weights of the model.
        session: The file.

    Returns:
        For each metric of the config its value of the ``model`` and of the ``file``.

    Raises:
        MissingFileError: The test dataset is not here.
        InputError, DatasetError: As :func:`icconv_mm.apis.test`.
    """
    with tempfile.TemporaryDirectory() as folder, boundary(cfg) as progress:
        cfg.work_dir = folder
        prepare_test(cfg, checkpoint)
        runner = build_runner(cfg, progress)
        model = runner.test()
        runner.model.test_step = partial(_found, runner.model, session)
        file = runner.test()
    return {name: {'model': model.get(name, 0.0), 'file': file.get(name, 0.0)} for name in sorted({**model, **file})}


def _found(model: nn.Module, session: Session, data: dict) -> list[Any]:
    """What ``test_step`` of a model returns for a batch, with what the file finds."""
    samples = model.data_preprocessor(data, False)['data_samples']
    paths = [sample.img_path for sample in samples]
    for sample, prediction in zip(samples, session.predict(paths), strict=True):
        for name, task in session.tasks.items():
            own = sample.get(name) if name else sample
            if own is not None:  # a picture may have no labels for a task
                put_into(own, task, prediction.tasks[name])
    return list(samples)
