"""Converts the layers of an ONNX model to float16; predictions are decoded in float32.

Layers are the convolutions and products with trained weights, and what computes between them. Inputs and outputs of the
file keep their types. Public converters change types by operator alone, and so decode boxes in float16: corners at
1,000 pixels then lie half a pixel apart.
"""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from icconv_mm.app.export.onnx_files import PRODUCTS, calibration_reader, is_last, names_read, readers_of, remove_unread

_BETWEEN = (
    *('Add', 'Clip', 'Concat', 'Div', 'Expand', 'Flatten', 'Gather', 'HardSigmoid', 'HardSwish', 'LeakyRelu'),
    *('MaxPool', 'AveragePool', 'Mul', 'Pad', 'PRelu', 'Relu', 'Reshape', 'Resize', 'Sigmoid', 'Slice', 'Split'),
    *('Squeeze', 'Sub', 'Tanh', 'Transpose', 'Unsqueeze'),
)
_FLOAT = {'Resize': (1, 2)}  # inputs that stay float32: regions and scales
_LARGEST = 65504.0
_ROOM = 8  # results of other images may be as many times larger
_SUFFIX = '_half'


def to_half(model: onnx.ModelProto, inputs: Iterable[Mapping[str, np.ndarray]]) -> int:
    """Converts the layers of a model in place and returns how many convolutions and products stay in float32.

    Args:
        model: A model of float32.
        inputs: Its inputs for some images: layers whose results come close to float16's largest number stay in float32,
            and so do those whose weights exceed it.
    """
    types = _types(model)
    weights = {initializer.name: numpy_helper.to_array(initializer) for initializer in model.graph.initializer}
    too_large = {name for name, weight in weights.items() if np.abs(weight).max(initial=0) > _LARGEST}
    results = _largest_results(model, half_nodes(model, types, too_large), inputs)
    too_large |= {name for name, value in results.items() if not value * _ROOM < _LARGEST}
    chosen = half_nodes(model, types, too_large)
    _convert(model.graph, chosen, types)
    remove_unread(model)
    return sum(node.op_type in PRODUCTS and node.name not in chosen for node in model.graph.node)


def half_nodes(model: onnx.ModelProto, types: Mapping[str, int], too_large: Iterable[str] = ()) -> set[str]:
    """Returns the names of the nodes that compute in float16.

    Args:
        model: The model.
        types: Element types of its tensors.
        too_large: Tensors that stay in float32.
    """
    constants, readers = {initializer.name for initializer in model.graph.initializer}, readers_of(model)
    too_large, chosen, half = set(too_large), set(), set()
    for node in model.graph.node:  # a node comes after those that it reads
        values = [name for name in _data(node) if types.get(name) == TensorProto.FLOAT]
        results = [name for name in values if name not in constants]
        if node.op_type in PRODUCTS and len(results) < len(values):
            is_half = True
        else:
            is_half = node.op_type in (*_BETWEEN, *PRODUCTS) and bool(results) and half.issuperset(results)
            is_half = is_half and not is_last(node, readers)
        if is_half and not too_large.intersection([*node.output, *values]):
            chosen.add(node.name)
            half.update(node.output)
    return chosen


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Returns the element type of each tensor."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {initializer.name: initializer.data_type for initializer in graph.initializer}


def _data(node: onnx.NodeProto) -> list[str]:
    """Returns the inputs of a node that have the type of its results."""
    return [name for i, name in enumerate(node.input) if name and i not in _FLOAT.get(node.op_type, ())]


def _largest_results(
    model: onnx.ModelProto, chosen: set[str], inputs: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, float]:
    """Returns the largest magnitude of each tensor that the chosen nodes would read or write as float16."""
    from onnxruntime.quantization.calibrate import create_calibrator

    with tempfile.TemporaryDirectory() as folder:
        source, augmented = Path(folder, 'model.onnx'), Path(folder, 'augmented.onnx')
        onnx.save(model, str(source))
        kinds = sorted({node.op_type for node in model.graph.node if node.name in chosen})
        calibrator = create_calibrator(str(source), kinds, augmented_model_path=str(augmented))
        calibrator.collect_data(calibration_reader(inputs))
        ranges = calibrator.compute_data().data
    return {name: float(np.abs(largest.range_value).max()) for name, largest in ranges.items()}


def _convert(graph: onnx.GraphProto, chosen: set[str], types: Mapping[str, int]) -> None:
    values = {initializer.name: initializer for initializer in graph.initializer}
    results = {output.name for output in graph.output}
    read_as_float = {
        name for node in graph.node for name in names_read(node) if node.name not in chosen or name not in _data(node)
    } | results
    nodes: list[onnx.NodeProto] = []
    names: set[str] = set()

    def half_of(name: str) -> str:
        """Returns the name of a tensor in float16, which exists from here on."""
        half = name + _SUFFIX
        if half in names:
            return half
        names.add(half)
        if name in values:
            graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(values[name]).astype('f2'), half))
        else:
            nodes.append(onnx.helper.make_node('Cast', [name], [half], name=f'{half}_cast', to=TensorProto.FLOAT16))
        return half

    for node in list(graph.node):
        if node.name in chosen:
            data = _data(node)
            node_inputs = [
                half_of(name) if name in data and types.get(name) == TensorProto.FLOAT else name for name in node.input
            ]
            outputs = list(node.output)
            del node.input[:], node.output[:]
            node.input.extend(node_inputs)
            node.output.extend(name + _SUFFIX for name in outputs)
            names.update(node.output)
            nodes.append(node)
            for name in read_as_float.intersection(outputs):
                cast = dict(name=f'{name}_float_cast', to=TensorProto.FLOAT)
                nodes.append(onnx.helper.make_node('Cast', [name + _SUFFIX], [name], **cast))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
