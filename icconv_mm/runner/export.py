"""A trained network as one file that runs without this package, checked against the model before it is written."""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from icconv_mm.annotations.loading import find_images
from icconv_mm.errors import UserError, message_of, naming
from icconv_mm.export import comparison
from icconv_mm.export.check import ComparedModel, check_file, images_to_check
from icconv_mm.export.description import describe, write_description
from icconv_mm.export.run import file_of, move_parts, open_session, refusals, write_network
from icconv_mm.runner.config import TaskRun, as_run
from icconv_mm.runner.explain_errors import boundary
from icconv_mm.runner.images import InputImage, is_large, read_image
from icconv_mm.runner.predict import Predictor, inference_transforms
from icconv_mm.runner.prepare import prepare_test
from icconv_mm.runner.train import build_runner
from icconv_mm_runtime import Session
from icconv_mm_runtime import metadata as metadata_schema


def export(
    cfg: TaskRun | Config | str | Path,
    checkpoint: str,
    to: str = 'onnx',
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    fixed: Sequence[int] | None = None,
    int8: str | Path | None = None,
    operator: bool = False,
) -> dict[str, Any]:
    """Write a trained network as one file.

    The file takes pixels and gives what :mod:`icconv_mm_runtime` makes boxes, masks, segmentation maps, poses or
    classes of. Before it is written, the same images go through :class:`Predictor` and through the file; where their
    results differ by more than :data:`icconv_mm.export.comparison.LIMITS`, nothing is written.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config, changed in place, or its file.
        checkpoint: File with the weights of the model.
        to: 'onnx' (ONNX Runtime, OpenVINO and others), 'openvino' (``.xml`` and ``.bin``) or 'pt2' (AOTInductor, which
            needs torch).
        out: The file; by default that of the checkpoint with another suffix.
        images: Images of the check: a file, a folder or a pattern; by default some of the config's test dataset.
        fixed: Height and width of every input; free by default.
        int8: Images by which activations are measured, to compute in integers of 8 bits. Results then differ, and
            nothing is refused for that; the report has what it costs, measured on the config's whole test dataset.
        operator: With 'pt2', keep this package's own convolution, which needs it where the file is used.

    Returns:
        The report: ``file``, ``bytes``, ``convolutions`` (of the file), ``layers`` (inception convolutions of the
        model), ``check`` (the largest differences, by kind), ``milliseconds`` from an image's file to its results, of
        the ``model`` and of the ``file``; with ``int8`` also ``metrics``, of the ``model`` and of the ``file``.

    Raises:
        InputError: A part of the network cannot be exported, an image cannot be used, or the results differ; the
            message names the part, or the largest difference.
        MissingLibraryError: A library that writes or runs such a file is not installed.
    """
    out = file_of(to, out, checkpoint, int8)
    run = as_run(cfg)
    transforms = [dict(transform) for transform in inference_transforms(run)]  # as the config has them
    predictor = Predictor(run, checkpoint, device='cpu')
    paths = find_images(images) if images is not None else _images_of(run)
    with naming(run.name):
        known = predictor.task.parts(predictor.dataset_meta)
        network, description = describe(predictor.model, known, transforms, fixed, checkpoint)
    with refusals(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        metadata_schema.check_metadata(description, str(out))
        file = Path(folder, out.name)
        report = write_network(network, description, to, file, int8, operator)
        session = open_session(network, description, to, file)
        report['check'], report['milliseconds'] = check_file(
            compared_model(predictor), session, paths, limited=int8 is None
        )
        if int8 is not None:
            report['metrics'] = _metrics(run, checkpoint, session)
        write_description(to, file, {**description, 'check': report['check']})
        move_parts(Path(folder), out)
    return {'file': str(out), 'bytes': out.stat().st_size, **report}


def _images_of(run: TaskRun) -> list[Path]:
    return images_to_check([*run.datasets['test'], *run.datasets['val']], run.name)


def compared_model(predictor: Predictor) -> ComparedModel:
    """What a file of a predictor's model is compared with."""
    known = predictor.task.parts(predictor.dataset_meta)
    adapters = {name: adapter for name, (adapter, _) in known.items()}
    return ComparedModel(predictor.model, adapters, partial(_predict, predictor))


def _predict(predictor: Predictor, batch: Sequence[Path]) -> list[Any]:
    return [sample for _, sample in predictor.predict(list(map(_whole, batch)), len(batch))]


def _whole(path: Path) -> Path | InputImage:
    """An image that the model is not to read reduced, as the runtime never does."""
    return InputImage(path, read_image(path)) if is_large(path) else path


def _metrics(run: TaskRun, checkpoint: str, session: Session) -> dict[str, dict[str, float]] | str:
    """What the model and the file reach on the test dataset, or a message why they are unknown."""
    try:
        return compare_metrics(run, checkpoint, session)
    except UserError as error:
        return f'not measured: {message_of(error)}'


def compare_metrics(cfg: TaskRun | Config, checkpoint: str, session: Session) -> dict[str, dict[str, float]]:
    """Test a model, and then its file in its place.

    Args:
        cfg: A run or a config, which is changed in place.
        checkpoint: File with the weights of the model.
        session: The file.

    Returns:
        For each metric of the config its value of the ``model`` and of the ``file``.

    Raises:
        MissingFileError: The test dataset is not here.
        InputError, DatasetError: As :func:`icconv_mm.apis.test`.
    """
    run = as_run(cfg)
    with tempfile.TemporaryDirectory() as folder, boundary(run) as progress:
        run.cfg.work_dir = folder
        prepare_test(run, checkpoint)
        runner = build_runner(run, progress)
        model = runner.test()
        # whoever exports with int8 would not know what it costs: loop, metrics and hooks stay those of the test
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
            if own is not None:  # an image may have no labels for a task
                comparison.put_into(own, task, prediction.tasks[name])
    return list(samples)
