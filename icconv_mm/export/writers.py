"""Writes the files of an exported model, each with its description inside, and runs them here."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from icconv_mm.checkpoints.convert import sha256
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.export.networks import Exported
from icconv_mm_runtime.engines import RunFunction
from icconv_mm_runtime.metadata import KEY

FORMATS = {'onnx': '.onnx', 'openvino': '.xml', 'pt2': '.pt2'}


def write_onnx(model: Any, description: Mapping[str, Any], path: Path) -> None:
    """Writes an ``onnx.ModelProto`` to a file."""
    import onnx

    onnx.helper.set_model_props(model, {KEY: json.dumps(description)})
    onnx.save(model, str(path))


def to_openvino(model: Any) -> Any:
    """Converts an ONNX model to an OpenVINO model."""
    try:
        import openvino
    except ImportError:
        raise MissingLibraryError(
            "to='openvino' needs openvino, which is not installed: pip install openvino"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        write_onnx(model, {}, path)
        return openvino.convert_model(str(path))


def write_openvino(model: Any, description: Mapping[str, Any], path: Path) -> None:
    """Writes an OpenVINO model as ``.xml`` and ``.bin``; the description gets the SHA-256 of the ``.bin``."""
    import openvino

    for _ in range(2):  # the weights' SHA-256 is known after the first time
        model.set_rt_info(json.dumps(description), [KEY])
        openvino.save_model(model, str(path), compress_to_fp16=False)
        description = {**description, 'weights_sha256': sha256(path.with_suffix('.bin'))}


def compile_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compiles a package of AOTInductor: machine code for this kind of processor, which torch loads.

    Raises:
        InputError: The compiler fails or does not exist.
    """
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # the compiler can raise anything
        raise InputError(f"to='pt2': AOTInductor fails ({' '.join(str(error).split())[:300]})") from error


def pt2_runner(path: Path, outputs: Sequence[str], scales: int) -> RunFunction:
    """Returns a function that runs a package of AOTInductor in this process."""
    loaded = torch._inductor.aoti_load_package(str(path))

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = [torch.from_numpy(array) for array in inputs.values()]
        found = loaded(tensors[:scales], *tensors[scales:])
        return {name: value.numpy() for name, value in zip(outputs, found)}

    return run


def standard_module(program: torch.export.ExportedProgram) -> torch.fx.GraphModule:
    """Returns the program as a module of torch's own convolutions with weights computed once, not in each call."""
    from torch._export.passes.constant_folding import ConstantFolder, replace_node_with_constant  # missing in torch 2.1

    class Folder(ConstantFolder):
        def is_impure(self, node: torch.fx.Node) -> bool:
            return False  # torch looks up quantisation operators, which may not be loaded

    own = [
        operator
        for operator in torch._decomp.decomposition_table
        if isinstance(operator, torch._ops.OpOverload) and operator.namespace == 'icconv_mm'
    ]
    table = {operator: torch._decomp.decomposition_table[operator] for operator in own}
    module = program.run_decompositions(table).module()
    folder = Folder(module)
    with torch.no_grad():
        folder.run()
    for node, constant in folder.node_replacements.items():
        replace_node_with_constant(module, node, constant)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def input_names(network: Exported) -> list[str]:
    """Returns ``image``, ``image_1``, ... and ``size``."""
    images = ['image', *(f'image_{number}' for number in range(1, len(network.scales)))]
    return [*images, *(['size'] if network.sized else [])]
