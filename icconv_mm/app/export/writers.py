"""Writes the files of an exported model, each with its description inside, and runs them here."""

import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icconv_mm.app.export.networks import Exported
from icconv_mm.app.export.operators import any_remainder
from icconv_mm.checkpoints.convert import sha256
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm_runtime.engines import RunFunction
from icconv_mm_runtime.metadata import KEY


@dataclass(frozen=True)
class Format:
    """A format of exported files; :data:`FORMATS` has all.

    Attributes:
        suffix: Of its files.
        write: Writes a file: of a format of torch from a program, else from an ONNX model with the description.
        describe: Writes the final description into a file that was written.
        needs: Libraries that write and run it, besides torch.
        load: Of a format of torch: returns the function that a file holds.
        pixels: Type of the pixels, 0 to 255; Core ML and ncnn, which read programs, have no uint8.
        layout: How a format of torch holds weights: machine code reads channels_last.
    """

    suffix: str
    write: Callable[[Any, Mapping[str, Any], Path], None]
    describe: Callable[[Path, Mapping[str, Any]], None]
    needs: tuple[str, ...] = ()
    load: Callable[[Path], Callable] | None = None
    pixels: torch.dtype = torch.uint8
    layout: torch.memory_format = torch.contiguous_format


def write_onnx(model: Any, description: Mapping[str, Any], path: Path) -> None:
    """Writes an ``onnx.ModelProto`` to a file."""
    import onnx

    onnx.helper.set_model_props(model, {KEY: json.dumps(description)})
    onnx.save(model, str(path))


def _describe_onnx(file: Path, description: Mapping[str, Any]) -> None:
    import onnx

    model = onnx.load(str(file))
    del model.metadata_props[:]
    write_onnx(model, description, file)


def to_openvino(model: Any) -> Any:
    """Converts an ONNX model to an OpenVINO model."""
    try:
        import openvino
        from openvino.frontend import ConversionExtension
    except ImportError:
        raise MissingLibraryError(
            "to='openvino' needs openvino, which is not installed: pip install openvino"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        write_onnx(model, {}, path)
        return openvino.convert_model(str(path), extension=[ConversionExtension('DeformConv', _deform_conv)])


def _deform_conv(node: Any) -> list[Any]:
    """Returns OpenVINO's operation for a ``DeformConv``, which its reader of ONNX does not know."""
    from openvino import opset8

    x, weight, offset, *others = (node.get_input(number) for number in range(node.get_input_size()))
    bias, mask = (*others, None, None)[:2]
    pads = node.get_attribute('pads')
    convolution = opset8.deformable_convolution(
        x,
        offset,
        weight,
        node.get_attribute('strides'),
        pads[:2],
        pads[2:],
        node.get_attribute('dilations'),
        mask,
        'EXPLICIT',
        node.get_attribute('group'),
        node.get_attribute('offset_group'),
        True,
    )
    if bias is not None:
        convolution = opset8.add(convolution, opset8.reshape(bias, np.array([1, -1, 1, 1]), False))
    return list(convolution.outputs())


def write_openvino(model: Any, description: Mapping[str, Any], path: Path) -> None:
    """Writes an OpenVINO model as ``.xml`` and ``.bin``; the description gets the SHA-256 of the ``.bin``."""
    import openvino

    for _ in range(2):  # the weights' SHA-256 is known after the first time
        model.set_rt_info(json.dumps(description), [KEY])
        openvino.save_model(model, str(path), compress_to_fp16=False)
        description = {**description, 'weights_sha256': sha256(path.with_suffix('.bin'))}


def _describe_openvino(file: Path, description: Mapping[str, Any]) -> None:
    import openvino

    model = openvino.Core().read_model(str(file), config={'ENABLE_MMAP': False})
    write_openvino(model, description, file)


def compile_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compiles a package of AOTInductor: machine code for this kind of processor, which torch loads.

    Raises:
        InputError: The compiler fails or does not exist.
    """
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # the compiler can raise anything
        raise InputError(f"to='pt2': AOTInductor fails ({' '.join(str(error).split())[:300]})") from error


def _describe_pt2(file: Path, description: Mapping[str, Any]) -> None:
    with zipfile.ZipFile(file, 'a') as archive:
        archive.writestr(f'{archive.namelist()[0].split("/")[0]}/extra/{KEY}', json.dumps(description))


def write_program(program: torch.export.ExportedProgram, description: Mapping[str, Any], path: Path) -> None:
    """Writes a program with ``torch.export.save``."""
    torch.export.save(program, path, extra_files={KEY: json.dumps(description)})


def own_operators(program: torch.export.ExportedProgram) -> list[str]:
    """Returns the names of this package's operators in a program."""
    targets = {node.target for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}
    return sorted(target._schema.name for target in targets if target.namespace == 'icconv_mm')


def torch_runner(form: Format, path: Path, outputs: Sequence[str], scales: int) -> RunFunction:
    """Returns a function that runs a file of one of the formats of torch in this process."""
    loaded = form.load(path)

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [torch.from_numpy(array) for array in inputs.values()]
        images = [image.to(form.pixels) for image in tensors[:scales]]
        results = loaded(images, *tensors[scales:])
        return {name: value.numpy() for name, value in zip(outputs, results)}

    return run


def standard_module(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """Returns the program as a module of torch's own convolutions with weights computed once, not in each call.

    Its weights and maps are contiguous: converters for phones read memory regardless of strides and offsets.
    """
    from torch._export.passes.constant_folding import ConstantFolder, replace_node_with_constant  # missing in torch 2.1

    class Folder(ConstantFolder):
        def is_impure(self, node: torch.fx.Node) -> bool:
            return False  # torch looks up quantisation operators, which may not be loaded

    operators = [
        operator
        for operator in torch._decomp.decomposition_table
        if isinstance(operator, torch._ops.OpOverload) and operator.namespace == 'icconv_mm'
    ]
    table = {operator: torch._decomp.decomposition_table[operator] for operator in operators}
    with any_remainder():
        module = program.run_decompositions(table).module()
    folder = Folder(module)
    with torch.no_grad():
        folder.run()
    for node, constant in folder.node_replacements.items():
        replace_node_with_constant(module, node, constant)
    _use_contiguous_maps(module.graph)
    module.graph.eliminate_dead_code()
    return torch.fx.GraphModule(_contiguous_state(module), module.graph)  # takes what the graph reads, no more


def _use_contiguous_maps(graph: torch.fx.Graph) -> None:
    """Removes the conversions to channels_last and back, and what relies on them."""
    aten = torch.ops.aten
    formats = torch.channels_last, torch.contiguous_format
    for node in graph.nodes:
        if node.target is aten.clone.default and node.kwargs.get('memory_format') in formats:
            node.replace_all_uses_with(node.args[0])
        elif node.target in (aten.view.default, aten._unsafe_view.default):  # some are of permuted maps, now no views
            node.target = aten.reshape.default


def _contiguous_state(module: torch.fx.GraphModule) -> dict[str, Any]:
    """Returns what the graph of a module reads, by name; tensors are contiguous, with a storage of their own."""
    state, copies = {}, {}  # copies by the original's id: names of one tensor stay names of one
    for node in module.graph.nodes:
        if node.op in ('get_attr', 'call_module'):
            value = attrgetter(node.target)(module)
            if isinstance(value, torch.Tensor):
                value = copies.setdefault(id(value), value.detach().clone(memory_format=torch.contiguous_format))
            state[node.target] = value
    return state


def input_names(network: Exported) -> list[str]:
    """Returns ``image``, ``image_1``, ... and ``size``."""
    images = ['image', *(f'image_{number}' for number in range(1, len(network.scales)))]
    return [*images, *(['size'] if network.sized else [])]


FORMATS = {
    'onnx': Format('.onnx', write_onnx, _describe_onnx, ('onnx', 'onnxscript', 'onnxruntime')),
    'openvino': Format(
        '.xml',
        lambda model, description, path: write_openvino(to_openvino(model), description, path),
        _describe_openvino,
        ('onnx', 'onnxscript', 'openvino'),
    ),
    'pt2': Format(
        '.pt2',
        lambda program, _, path: compile_pt2(program, path),  # described once, at the end
        _describe_pt2,
        load=lambda path: torch._inductor.aoti_load_package(str(path)),
        layout=torch.channels_last,
    ),
    'program': Format(
        '.pt2',
        write_program,
        lambda file, description: write_program(torch.export.load(file), description, file),
        load=lambda path: torch.export.load(path).module(),
        pixels=torch.float32,
    ),
}
