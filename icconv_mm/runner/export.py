"""A trained network as one file that runs without this package, checked against the model before it is written."""

import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from mmengine.config import Config
from torch import nn

from icconv_mm import versions
from icconv_mm._version import __version__
from icconv_mm.annotations.loading import find_images
from icconv_mm.arguments import require_known
from icconv_mm.checkpoints.convert import sha256
from icconv_mm.config_tree import join_root
from icconv_mm.deployment import deploy
from icconv_mm.errors import ArgumentError, InputError, MissingLibraryError, UserError, message_of, naming
from icconv_mm.export import comparison, writers
from icconv_mm.export.networks import Exported, capture
from icconv_mm.export.preparation import batch_of, scales_of, steps_of
from icconv_mm.layers import ICConv2d
from icconv_mm.runner.config import TaskRun, as_run
from icconv_mm.runner.explain_errors import boundary
from icconv_mm.runner.images import InputImage, is_large, read_image
from icconv_mm.runner.predict import Predictor, inference_transforms
from icconv_mm.runner.prepare import prepare_test
from icconv_mm.runner.train import build_runner
from icconv_mm_runtime import RuntimeInputError, Session
from icconv_mm_runtime import metadata as metadata_schema

_IMAGES = 4  # of the check, where none are given


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
        cfg: Config of the model, or its file.
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
    require_known([to], tuple(writers.FORMATS), 'to: there is no format')
    _check_versions(to)
    out = Path(out) if out is not None else Path(checkpoint).with_suffix(writers.FORMATS[to])
    if out.suffix != writers.FORMATS[to]:
        raise ArgumentError('out', f'expected a name that ends in {writers.FORMATS[to]}, got {out}')
    if int8 is not None and to == 'pt2':
        raise ArgumentError('int8', "expected to='onnx' or 'openvino', got 'pt2'")
    _check_writable(out)
    run = as_run(cfg)
    transforms = [dict(transform) for transform in inference_transforms(run)]  # as the config has them
    predictor = Predictor(run, checkpoint, device='cpu')
    paths = find_images(images) if images is not None else _images_of(run)
    with naming(run.name):
        network, description = _described(predictor, transforms, fixed, checkpoint)
    with _refusals(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f'.{out.name}.') as folder:
        metadata_schema.check_metadata(description, str(out))
        file = Path(folder, out.name)
        report = _made(network, description, to, file, int8, operator)
        session = _session(network, description, to, file)
        report['check'], report['milliseconds'] = _checked(predictor, session, paths, limited=int8 is None)
        if int8 is not None:
            report['metrics'] = _metrics(run, checkpoint, session)
        _describe(to, file, {**description, 'check': report['check']})
        _move(Path(folder), out)
    return {'file': str(out), 'bytes': out.stat().st_size, **report}


@contextmanager
def _refusals() -> Iterator[None]:
    """What the runtime refuses is wrong input of the export."""
    try:
        yield
    except RuntimeInputError as error:
        raise InputError(str(error)) from error


def _move(folder: Path, out: Path) -> None:
    """Move the parts of a file to where it belongs; one of several parts is never beside a part of the former one."""
    others = [part for part in folder.iterdir() if part.name != out.name]
    if others:
        out.unlink(missing_ok=True)  # until its other parts are there, nothing can be opened
    for part in (*others, folder / out.name):
        part.replace(out.parent / part.name)


def _check_versions(to: str) -> None:
    for name in (
        'onnx',
        'onnxscript',
        *(['openvino'] if to == 'openvino' else []),
        *(['onnxruntime'] if to == 'onnx' else []),
    ):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise MissingLibraryError(f'to={to!r} needs {name}, which is not installed: pip install {name}') from None


def _check_writable(out: Path) -> None:
    with naming(str(out), OSError):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass


def _images_of(run: TaskRun) -> list[Path]:
    """Some images of the test dataset."""
    for leaf in (each.cfg for phase in ('test', 'val') for each in run.datasets[phase] if each.is_leaf):
        prefixes, root = leaf.get('data_prefix') or {}, leaf.get('data_root') or ''
        folder = prefixes.get('img', prefixes.get('img_path', '')) if isinstance(prefixes, Mapping) else prefixes
        path = Path(join_root(root, folder or ''))
        listed = (path / name for name in _names_in(Path(join_root(root, leaf.get('ann_file') or ''))))
        if found := list(islice(filter(Path.is_file, listed), _IMAGES)):
            return found
        if path.is_dir() and (root or folder):
            return find_images(path)[:_IMAGES]
    raise ArgumentError('images', f'{run.name}: the images of the test dataset are not here; name some for the check')


def _names_in(file: Path) -> list[str]:
    """The image names in an annotation file: COCO, a list of segmentation maps, or ``NAME LABEL`` lines."""
    if not file.is_file():
        return []
    with naming(str(file), OSError, ValueError, LookupError, TypeError, AttributeError):
        text = file.read_text(encoding='utf-8')
        if file.suffix == '.json':
            return [image['file_name'] for image in json.loads(text)['images']]
        return [line.strip().rpartition(' ')[0] for line in text.splitlines()]


def _described(
    predictor: Predictor, transforms: list[dict], fixed: Sequence[int] | None, checkpoint: str
) -> tuple[Exported, dict]:
    """The network as a module from pixels to outputs, and what the file says of it."""
    model = predictor.model
    known = predictor.task.parts(predictor.dataset_meta)
    metas = {name: adapter.model_input('', meta) for name, (adapter, meta) in known.items()}
    steps = steps_of(transforms, 'test pipeline')
    network = Exported(_deployed(model), metas, scales_of(steps)).eval()
    batch = batch_of(model, steps, fixed, 'model.data_preprocessor')
    network.sized = batch['sized']
    tasks = []
    for part, (name, (adapter, meta)) in zip(network.parts, known.items()):
        described = {**adapter.described(meta), 'name': name, 'kind': part.kind, 'outputs': list(part.names)}
        tasks.append({**described, **part.details(metas[name])})
    layers = [module for module in model.modules() if isinstance(module, ICConv2d)]
    pattern = hashlib.sha256(repr([layer.scaled_pattern.flat for layer in layers]).encode()).hexdigest()
    return network, {
        'schema': metadata_schema.SCHEMA,
        'steps': steps,
        'batch': batch,
        'tasks': tasks,
        'pattern_sha256': pattern if layers else None,
        'layers': len(layers),
        'checkpoint_sha256': sha256(checkpoint),
        'versions': {
            'icconv_mm': __version__,
            **{name: (versions.installed(name) or ('', ''))[1] for name in versions.SUPPORTED},
        },
    }


def _deployed(model: nn.Module) -> nn.Module:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # that there is nothing to fold
        return deploy(model)


def _example(network: Exported, description: Mapping[str, Any]) -> tuple:
    """Arguments of the network, batch 2: free sizes are traced at one that no layer confuses with another."""
    height, width = description['batch']['fixed'] or (512, 704)
    images = [
        torch.randint(256, (2, 3, round(height * scale), round(width * scale)), dtype=torch.uint8)
        for scale in network.scales
    ]
    size = torch.tensor([[height, width, 1.0, 1.0], [height - 16, width - 16, 1.0, 1.0]])
    return (images, size) if network.sized else (images,)


def _made(
    network: Exported, description: Mapping[str, Any], to: str, file: Path, int8: str | Path | None, operator: bool
) -> dict[str, Any]:
    """Write the file, still without the figures of the check."""
    from icconv_mm.export.onnx_files import count_convolutions, to_onnx

    example, fixed = _example(network, description), description['batch']['fixed'] is not None
    program = capture(network, example, fixed)
    if to == 'pt2':
        program = program if operator else capture(writers.standard_module(program), example, fixed)
        writers.compile_pt2(program, file)
        return {'layers': description['layers']}
    model = to_onnx(program, writers.input_names(network), network.names)
    report = {'layers': description['layers'], 'convolutions': count_convolutions(model)}
    if int8 is not None:
        from icconv_mm.export import quantization

        quantization.write(model, description, to, file, find_images(int8))
    elif to == 'onnx':
        writers.write_onnx(model, description, file)
    else:
        writers.write_openvino(writers.to_openvino(model), description, file)
    return report


def _session(network: Exported, description: Mapping[str, Any], to: str, file: Path) -> Session:
    """What runs the file, which gets its description."""
    if to == 'pt2':
        return Session.of(description, writers.pt2_runner(file, network.names, len(network.scales)), str(file))
    _describe(to, file, description)
    return Session(file)


def _checked(
    predictor: Predictor, session: Session, images: Sequence[Path], limited: bool
) -> tuple[dict[str, Any], dict[str, float]]:
    """The largest differences between the model and the file, one and two images in a batch; and the times of one."""
    adapters = {name: adapter for name, (adapter, _) in predictor.task.parts(predictor.dataset_meta).items()}
    differences = comparison.Differences(session.tasks, adapters)
    milliseconds: dict[str, float] = {}
    for batch_size in (1, 2):
        seconds: dict[str, list[float]] = {'model': [], 'file': []}
        counts: list[int] = []
        counted = Session.of(session.metadata, partial(_counted, session, counts), session.file)
        found = _timed(counted.predict(list(map(str, images)), batch_size), seconds['file'])
        left = iter(images)
        batches = [list(islice(left, count)) for count in counts]  # the model gets those of the file
        samples = _timed(_samples(predictor, batches), seconds['model'])
        if limited:
            for prediction, (batch, sample) in zip(found, samples, strict=True):
                is_tie = partial(_is_tie, predictor, session, batch)
                differences.add(prediction.path, prediction.tasks, sample, is_tie)
        milliseconds = milliseconds or {
            name: round(1e3 * statistics.median(values), 1) for name, values in seconds.items()
        }
        sizes = {path: prediction.image.shape for path, prediction in zip(images, found)}
        images = sorted(images, key=sizes.get)  # most libraries make pairs of equal sizes only
    differences.require_small()
    ties = {'ties': len(differences.ties)} if differences.ties else {}
    return {'images': len(images), **differences.largest, **ties}, milliseconds


def _counted(session: Session, counts: list[int], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a file gives for a batch, whose size is counted."""
    counts.append(len(arrays['image']))
    return session.run(arrays)


def _samples(predictor: Predictor, batches: Sequence[Sequence[Path]]) -> Iterator[tuple[Sequence[Path], Any]]:
    """What the model finds in each image, after the batch that it was in."""
    for batch in batches:
        for _, sample in predictor.predict(list(map(_whole, batch)), len(batch)):
            yield batch, sample


def _whole(path: Path) -> Path | InputImage:
    """An image that the model is not to read reduced, as the runtime never does."""
    return InputImage(path, read_image(path)) if is_large(path) else path


def _is_tie(predictor: Predictor, session: Session, batch: Sequence[Path], path: str, name: str) -> bool:
    """Whether a pose task finds other people in an image of a batch than the model though their maps agree.

    Grouping rounds distances of tags and compares neighbouring pixels: where two are alike, the last digit decides. The
    runtime has to find the model's people in the model's maps, and the maps of the file have to be these.
    """
    task, prefix = session.tasks[name], f'{name}.' if name else ''
    paths, outputs = list(map(str, batch)), {}
    row = paths.index(path)
    list(Session.of(session.metadata, partial(_recorded, session, outputs), session.file).predict(paths, len(paths)))
    estimator = predictor.model.tasks[name] if name else predictor.model
    with mock.patch.dict(estimator.test_cfg, output_heatmaps=True):
        found = list(predictor.predict(list(map(_whole, batch)), len(batch)))
    samples = [sample.get(name) if name else sample for _, sample in found]
    heatmaps, tags = (
        np.stack([getattr(sample.pred_fields, each).cpu().numpy() for sample in samples])
        for each in ('heatmaps', 'tags')
    )
    tags = tags.reshape(*heatmaps.shape[:2], -1, *heatmaps.shape[2:]).swapaxes(1, 2)
    maps = {f'{prefix}heatmaps': heatmaps, f'{prefix}tags': tags}
    for key, known in maps.items():
        limit = comparison.LIMITS['scores'] * max(1, np.abs(known[row]).max())
        if not np.abs(outputs[key][row] - known[row]).max() <= limit:
            return False
    of_maps = Session.of(session.metadata, lambda _: {**outputs, **maps}, session.file)
    grouped = list(of_maps.predict(paths, len(paths)))[row].tasks[name]
    adapter, _ = predictor.task.parts(predictor.dataset_meta)[name]
    return comparison.is_close(comparison.compared(task, grouped, adapter.found(samples[row])))


def _recorded(session: Session, outputs: dict[str, np.ndarray], arrays: Mapping) -> dict[str, np.ndarray]:
    outputs.update(session.run(arrays))
    return outputs


def _metrics(run: TaskRun, checkpoint: str, session: Session) -> dict[str, dict[str, float]] | str:
    """What the model and the file reach on the test dataset, or a sentence that says why nobody knows."""
    try:
        return compare_metrics(run, checkpoint, session)
    except UserError as error:
        return f'not measured: {message_of(error)}'


def _timed(results: Iterator, seconds: list[float]) -> list:
    """All results, and how long each took."""
    found, begin = [], time.perf_counter()
    for each in results:
        found.append(each)
        seconds.append(time.perf_counter() - begin)
        begin = time.perf_counter()
    return found


def _describe(to: str, file: Path, description: Mapping[str, Any]) -> None:
    """Put the description into the file, in the place of the one it has."""
    if to == 'pt2':
        writers.add_description(file, description)
    elif to == 'onnx':
        import onnx

        model = onnx.load(str(file))
        del model.metadata_props[:]
        writers.write_onnx(model, description, file)
    else:
        import openvino

        model = openvino.Core().read_model(str(file), config={'ENABLE_MMAP': False})
        writers.write_openvino(model, description, file)


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
