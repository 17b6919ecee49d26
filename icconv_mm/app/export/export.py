"""Exports a trained network as one file that runs without this package, after a comparison with the model."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model.base_model import data_preprocessor
from torch import Tensor, nn
from torch.nn.functional import pad

from icconv_mm.app.export import comparison, writers
from icconv_mm.app.export.check import ComparedModel, check_file, images_to_check
from icconv_mm.app.export.description import describe
from icconv_mm.app.export.run import file_of, open_session, write_network
from icconv_mm.app.prediction.checkpoint import Predictor
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.images import InputImage, is_large, read_image
from icconv_mm.app.runs.prepare import Testing
from icconv_mm.app.training.train import build_runner
from icconv_mm.datasets.loading import find_images
from icconv_mm.errors import UserError, message_of, naming
from icconv_mm_runtime import Session
from icconv_mm_runtime import metadata as metadata_schema
from icconv_mm_runtime.errors import RuntimeInputError
from icconv_mm_runtime.files import write_together


def export(
    cfg: TaskRun | Config | str | Path,
    checkpoint: str,
    to: str = 'onnx',
    out: str | Path | None = None,
    *,
    images: str | Path | None = None,
    fixed: Sequence[int] | None = None,
    int8: str | Path | None = None,
    half: bool = False,
    operator: bool = False,
    deform_conv: bool = False,
) -> dict[str, Any]:
    """Exports a trained network as one file.

    The file maps pixels to the tensors that :mod:`icconv_mm_runtime` decodes to boxes, masks, segmentation maps, poses
    or classes. Before it is written, :class:`Predictor` and the file predict the same images; if the results differ by
    more than :data:`icconv_mm.app.export.comparison.LIMITS`, nothing is written.

    Args:
        cfg: A run (:func:`icconv_mm.apis.load_run`) or a config, changed in place, or its file.
        checkpoint: File with the weights of the model.
        to: 'onnx' (ONNX Runtime, OpenVINO and others), 'openvino' (``.xml`` and ``.bin``), 'pt2' (AOTInductor, which
            needs torch) or 'program' (``torch.export.save``, which converters for phones read).
        out: The file; by default the checkpoint's name with another suffix.
        images: Images for the comparison: a file, a folder or a pattern; by default some of the config's test dataset.
        fixed: Height and width of every input; or (1, height, width): a batch has one image, and all sizes in the file
            are constants, which some runtimes require. Free by default.
        int8: Images for measuring activations, to compute in 8-bit integers. The results then differ and are not
            limited; the report has both metrics, measured on the config's whole test dataset.
        half: Whether layers compute in float16, for GPUs; predictions are decoded in float32. The results may differ by
            :data:`icconv_mm.app.export.comparison.HALF_LIMITS`.
        operator: With 'pt2' alone, whether to keep this package's own convolution; the file then requires the package.
        deform_conv: With 'onnx' alone, whether deformable convolutions are ONNX's own operator, faster where a runtime
            has it (ONNX Runtime from 1.25); else they are steps that every runtime has.

    Returns:
        The report: ``file``, ``bytes``, ``convolutions`` (of the file), ``layers`` (inception convolutions of the
        model), ``check`` (the largest differences, by kind), ``milliseconds`` from an image's file to its results, of
        the ``model`` and of the ``file``; with ``int8`` also ``metrics``, of the ``model`` and of the ``file``; of a
        file of ``half`` also ``float32_layers``, the number of layers whose results float16 cannot hold; of 'pt2' and
        'program' ``operators``, those of this package that the file needs, instead of ``convolutions``.

    Raises:
        InputError: A part of the network cannot be exported, an image cannot be used, or the results differ; the
            message names the part, or the largest difference.
        MissingLibraryError: A library that writes or runs such a file is not installed.
    """
    out = file_of(to, out, checkpoint, int8=int8, half=half, operator=operator, deform_conv=deform_conv)
    run = begin(cfg)
    transforms = [dict(transform) for transform in run.inference_transforms()]  # before the predictor changes them
    predictor = Predictor(run, checkpoint, device='cpu')
    datasets = [*run.datasets['test'], *run.datasets['val']]
    paths = find_images(images) if images is not None else images_to_check(datasets, run.name)
    with naming(run.name):
        parts = predictor.task.parts(predictor.dataset_meta)
        network, description = describe(predictor.model, parts, transforms, fixed, checkpoint)
    with (
        naming('', RuntimeInputError),
        naming(str(out.parent), OSError),
        write_together(out.parent, [out.name]) as folder,
    ):
        metadata_schema.check_metadata(description, str(out))
        file = folder / out.name
        report = write_network(network, description, to, file, int8, paths if half else (), operator, deform_conv)
        session = open_session(network, description, to, file)
        model = compared_model(predictor, description['batch'])
        limits = None if int8 is not None else comparison.HALF_LIMITS if half else comparison.LIMITS
        report['check'], report['milliseconds'] = check_file(model, session, paths, limits)
        if int8 is not None:
            try:
                report['metrics'] = compare_metrics(run, checkpoint, session)
            except UserError as error:
                report['metrics'] = f'not measured: {message_of(error)}'
        writers.FORMATS[to].describe(file, {**description, 'check': report['check']})
    return {'file': str(out), 'bytes': out.stat().st_size, **report}


def compared_model(predictor: Predictor, batch: Mapping[str, Any] | None = None) -> ComparedModel:
    """Returns the model of a predictor for the comparison with its file; ``batch`` is how the file pads its inputs."""
    shape = batch['fixed'] if batch and batch['sized'] else None

    def predict(batch: Sequence[Path]) -> list[Any]:
        # the runtime never reduces large images
        whole = [InputImage(path, read_image(path)) if is_large(path) else path for path in batch]
        with _padded_to(shape, predictor.model.data_preprocessor) if shape else nullcontext():
            return [sample for _, sample in predictor.predict(whole, len(batch))]

    parts = predictor.task.parts(predictor.dataset_meta)
    return ComparedModel(predictor.model, {name: adapter for name, (adapter, _) in parts.items()}, predict)


@contextmanager
def _padded_to(shape: Sequence[int], preprocessor: nn.Module) -> Iterator[None]:
    """Pads images to ``shape`` (height, width), as their file does: padding moves what a network finds beside it."""
    if hasattr(preprocessor, 'test_cfg'):  # mmseg's, which stacks images in a way of its own
        owner, name, value = preprocessor, 'test_cfg', dict(size=tuple(shape))
    else:
        owner, name, value = data_preprocessor, 'stack_batch', partial(_stacked, tuple(shape))
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _stacked(shape: tuple[int, int], tensors: Sequence[Tensor], divisor: int, value: float) -> Tensor:
    return torch.stack(
        [
            pad(tensor, (0, shape[1] - tensor.shape[-1], 0, shape[0] - tensor.shape[-2]), value=value)
            for tensor in tensors
        ]
    )


def compare_metrics(run: TaskRun, checkpoint: str, session: Session) -> dict[str, dict[str, float]]:
    """Evaluates a model, then its file, on the test dataset; returns the values of ``model`` and ``file``, by metric.

    The config is changed in place.

    Raises:
        MissingFileError: The test dataset does not exist.
        InputError, DatasetError: As :func:`icconv_mm.apis.test`.
    """
    with tempfile.TemporaryDirectory() as folder:
        run.cfg.work_dir = folder
        run = begin(run, checkpoint, Testing())
        with run.errors:
            runner = build_runner(run)
            model = runner.test()
            # replaces the model alone: loop, metrics and hooks stay the test's; else int8's loss would be unknown
            runner.model.test_step = partial(_found, runner.model, session)
            file = runner.test()
    return {name: {'model': model.get(name, 0.0), 'file': file.get(name, 0.0)} for name in sorted({**model, **file})}


def _found(model: nn.Module, session: Session, data: dict) -> list[Any]:
    """Returns the result of the model's ``test_step`` for a batch, with the file's predictions."""
    samples = model.data_preprocessor(data, False)['data_samples']
    paths = [sample.img_path for sample in samples]
    for sample, prediction in zip(samples, session.predict(paths), strict=True):
        for name, task in session.tasks.items():
            sample_of_task = sample.get(name) if name else sample
            if sample_of_task is not None:  # an image may have no annotations for a task
                comparison.put_into(sample_of_task, task, prediction.tasks[name])
    return list(samples)
