"""Steps of an export: check the arguments, write the file to a temporary folder, open it, and move it to its path."""

import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from icconv_mm.app.export import writers
from icconv_mm.app.export.networks import Exported, capture
from icconv_mm.app.export.preparation import inputs_of
from icconv_mm.arguments import require_known
from icconv_mm.datasets.loading import find_images
from icconv_mm.errors import ArgumentError, MissingLibraryError, naming
from icconv_mm_runtime import Session

NEEDS_OF_DEFORM_CONV = 'ONNX Runtime 1.25 or newer'  # the first that has the operator on CPUs


def file_of(
    to: str,
    out: str | Path | None,
    checkpoint: str,
    *,
    int8: str | Path | None = None,
    half: bool = False,
    operator: bool = False,
    deform_conv: bool = False,
) -> Path:
    """Returns the path of the file to write, from the arguments of :func:`icconv_mm.apis.export`.

    Raises:
        ArgumentError: The arguments conflict, or the file cannot be written.
        MissingLibraryError: A library that writes or runs such a file is not installed.
    """
    require_known([to], tuple(writers.FORMATS), 'to: there is no format')
    form = writers.FORMATS[to]
    for name in form.needs:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            raise MissingLibraryError(f'to={to!r} needs {name}, which is not installed: pip install {name}') from None
    out = Path(out) if out is not None else Path(checkpoint).with_suffix(form.suffix)
    if out.suffix != form.suffix:
        raise ArgumentError('out', f'expected a name that ends in {form.suffix}, got {out}')
    if out.is_dir():
        raise ArgumentError('out', f'{out} is a folder')
    for name, value in (('int8', int8), ('half', half or None)):
        if value is not None and form.load is not None:
            raise ArgumentError(name, f"expected to='onnx' or 'openvino', got {to!r}")
    if half and int8 is not None:
        raise ArgumentError('half', 'int8 is given as well: choose one of the two')
    if operator and to != 'pt2':
        raise ArgumentError('operator', f"expected to='pt2', got {to!r}")
    if deform_conv and to != 'onnx':
        raise ArgumentError('deform_conv', f"expected to='onnx', got {to!r}")
    with naming(str(out), OSError):  # before the work: whether it can be written
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out.parent):
            pass
    return out


def _example(network: Exported, description: Mapping[str, Any], pixels: torch.dtype) -> tuple:
    """Returns example arguments of the network, of a size that no layer confuses with another."""
    height, width = description['batch']['fixed'] or (512, 704)
    count = description['batch']['count'] or 2
    images = [
        torch.randint(256, (count, 3, round(height * scale), round(width * scale)), dtype=pixels)
        for scale in network.scales
    ]
    size = torch.tensor([[height, width, 1.0, 1.0], [height - 16, width - 16, 1.0, 1.0]][:count])
    return (images, size) if network.sized else (images,)


def write_network(
    network: Exported,
    description: Mapping[str, Any],
    to: str,
    file: Path,
    int8: str | Path | None,
    half: Sequence[Path],
    operator: bool,
    deform_conv: bool,
) -> dict[str, Any]:
    """Writes the file and returns its part of the report, without the figures of the check.

    ``half``: the images whose results float16 must hold; none for float32.
    """
    form, batch = writers.FORMATS[to], description['batch']
    example = _example(network, description, form.pixels)
    free = [*([] if batch['count'] else [0]), *([] if batch['fixed'] else [2, 3])]  # axes of the images
    program = capture(network, example, free)
    if form.load is not None:
        if not operator:
            module = writers.standard_module(program).to(memory_format=form.layout)
            program = capture(module, example, free)
        form.write(program, description, file)
        return {'layers': description['layers'], 'operators': writers.own_operators(program)}
    from icconv_mm.app.export.onnx_files import count_convolutions, to_onnx

    model = to_onnx(program, writers.input_names(network), network.names, deform_conv or to == 'openvino')
    if deform_conv:
        if all(node.op_type != 'DeformConv' for node in model.graph.node):
            raise ArgumentError('deform_conv', 'the network has no deformable convolution')
        description['needs'] = NEEDS_OF_DEFORM_CONV
    report = {'layers': description['layers'], 'convolutions': count_convolutions(model)}
    if half:
        from icconv_mm.app.export.half import to_half

        report['float32_layers'] = to_half(model, inputs_of(half, description))
    if int8 is not None:
        from icconv_mm.app.export import quantization

        quantization.write(model, description, to, file, find_images(int8))
    else:
        form.write(model, description, file)
    return report


def open_session(network: Exported, description: Mapping[str, Any], to: str, file: Path) -> Session:
    """Returns a session that runs the file, and writes the description into the file."""
    form = writers.FORMATS[to]
    if form.load is not None:
        run = writers.torch_runner(form, file, network.names, len(network.scales))
        return Session.of(description, run, str(file))
    form.describe(file, description)
    return Session(file, torch.get_num_threads())  # as many as the model that it is compared with
