"""Converts a program of ``torch.export`` to an ONNX model that every runtime reads."""

import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from icconv_mm.app.export.translations import DEFORM_CONV, TRANSLATIONS
from icconv_mm.datasets.reading import no_garbage_search
from icconv_mm.errors import InputError

OPSET, IR_VERSION = 18, 8  # the newer IR versions that torch writes are refused by runtimes that know the opset
PRODUCTS = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul')
DEFORM_CONV_OPSET, DEFORM_CONV_IR_VERSION = 19, 9
_CHOOSING = {'TopK', 'NonMaxSuppression', 'GatherElements', 'GatherND', 'ScatterND', 'Exp', 'Shape'}
_NO_LIMIT = 1 << 40
_LARGE = 1 << 13  # numbers; filters that are expanded are smaller


@no_garbage_search()
def to_onnx(
    program: torch.export.ExportedProgram, inputs: Sequence[str], outputs: Sequence[str], deform_conv: bool = False
) -> onnx.ModelProto:
    """Returns the program as an ONNX model of standard operators.

    Args:
        program: The program of ``torch.export.export``.
        inputs, outputs: Names of its inputs and outputs, in order.
        deform_conv: Whether a deformable convolution is ONNX's ``DeformConv``, of opset 19, which few runtimes know;
            else a ``GridSample`` for each tap and a convolution.

    Raises:
        InputError: The model has an operator of another domain, or an unused input.
    """
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():  # of the exporter, about its own code and about this package's operators
        warnings.simplefilter('ignore')
        # torch's own optimiser takes minutes for a network of thousands of nodes
        exported = torch.onnx.export(
            program,
            input_names=list(inputs),
            output_names=list(outputs),
            opset_version=OPSET,
            custom_translation_table={**TRANSLATIONS, **(DEFORM_CONV if deform_conv else {})},
            optimize=False,
            verbose=False,
        )
    logger.setLevel(level)
    model = _folded(exported.model)
    _fold_orders(model)
    _write_norms_as_sums(model.graph)
    _name_sizes(model)
    model.ir_version = IR_VERSION
    if any(node.op_type == 'DeformConv' for node in model.graph.node):  # no other node differs between the two opsets
        model.ir_version, model.opset_import[0].version = DEFORM_CONV_IR_VERSION, DEFORM_CONV_OPSET
    onnx.checker.check_model(model, full_check=True)
    if foreign := sorted({f'{node.domain}.{node.op_type}' for node in model.graph.node if node.domain}):
        raise InputError(f'the file would need operators that are not of ONNX: {", ".join(foreign)}')
    read = readers_of(model)
    if unread := [value.name for value in model.graph.input if value.name not in read]:
        raise InputError(f'nothing in the network reads {", ".join(unread)}')
    return model


def _folded(model: onnx_ir.Model) -> onnx.ModelProto:
    """Returns the model with inlined functions, folded constants of any size, and without unused nodes.

    A large Expand stays: of constants, it fills a tensor as large as maps or regions, which no file should hold.
    """
    common.InlinePass()(model)
    limits = dict(input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    fold_constants(model, should_fold=_is_folded, **limits)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.CommonSubexpressionEliminationPass()(model)
    common.RemoveUnusedNodesPass()(model)
    common.RemoveUnusedOpsetsPass()(model)
    return onnx_ir.to_proto(model)


def _is_folded(node: onnx_ir.Node) -> bool | None:
    """Returns whether a node is folded; None leaves the choice to the optimiser."""
    if node.op_type == 'Expand':
        shape = onnx_ir.convenience.get_const_tensor(node.inputs[1])
        return False if shape is not None and np.prod(shape.numpy()) > _LARGE else None
    return True if node.op_type == 'ConstantOfShape' else None


def _fold_orders(model: onnx.ModelProto) -> None:
    """Folds the channel order after an inception convolution into the filters of the convolutions that read it."""
    graph = model.graph
    values = {initializer.name: initializer for initializer in graph.initializer}
    readers = readers_of(model)
    results = {output.name for output in graph.output}
    done = []
    for node in graph.node:
        if node.op_type != 'Gather' or _attribute(node, 'axis', 0) != 1 or node.input[1] not in values:
            continue
        order = numpy_helper.to_array(values[node.input[1]])
        users = readers.get(node.output[0], [])
        width = _width(node.input[0], graph, values)
        foldable = all(_is_foldable(user, node.output[0], values, readers) for user in users)
        if order.ndim != 1 or not users or width is None or node.output[0] in results or not foldable:
            continue
        for user in users:
            filters = numpy_helper.to_array(values[user.input[1]])
            wide = np.zeros((filters.shape[0], width, *filters.shape[2:]), filters.dtype)
            wide[:, order] = filters
            values[user.input[1]].CopyFrom(numpy_helper.from_array(wide, user.input[1]))
            user.input[0] = node.input[0]
        done.append(node)
    for node in done:
        graph.node.remove(node)
    remove_unread(model)


def _write_norms_as_sums(graph: onnx.GraphProto) -> None:
    """Replaces ReduceL2, of which MNN 3.6.1 overlooks the axes, by the root of a sum."""
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        if node.op_type != 'ReduceL2':
            graph.node.append(node)
            continue
        (norm,) = node.output
        x, square, total = node.input[0], f'{norm}_square', f'{norm}_sum'
        node.op_type, node.input[0], node.output[0] = 'ReduceSum', square, total
        graph.node.append(onnx.helper.make_node('Mul', [x, x], [square], name=square))
        graph.node.append(node)
        graph.node.append(onnx.helper.make_node('Sqrt', [total], [norm], name=norm))


def _is_foldable(user: onnx.NodeProto, name: str, values: Mapping, readers: Mapping) -> bool:
    """Returns whether a node is an ungrouped convolution of a tensor, whose filters are constant and its alone."""
    if user.op_type != 'Conv' or user.input[0] != name or user.input[1] not in values:
        return False
    return _attribute(user, 'group', 1) == 1 and len(readers[user.input[1]]) == 1


def _width(name: str, graph: onnx.GraphProto, values: Mapping) -> int | None:
    """Returns the number of channels of concatenated convolution outputs; None for another tensor."""
    maker = next((node for node in graph.node if name in node.output), None)
    if maker is None:
        return None
    if maker.op_type == 'Conv' and maker.input[1] in values:
        return values[maker.input[1]].dims[0]
    if maker.op_type in ('Relu', 'Concat'):
        widths = [_width(part, graph, values) for part in maker.input]
        return None if None in widths else sum(widths)
    return None


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _name_sizes(model: onnx.ModelProto) -> None:
    for value in model.graph.input:
        for dim, name in zip(value.type.tensor_type.shape.dim, ('batch', None, 'height', 'width')):
            if dim.dim_param and name:
                dim.dim_param = name if value.name in ('image', 'size') else f'{name}_{value.name.rpartition("_")[2]}'
    for value in model.graph.output:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_param:
                dim.dim_param = f'{value.name}_{axis}' if axis else 'batch'
    del model.graph.value_info[:]


def count_convolutions(model: onnx.ModelProto) -> int:
    """Returns the number of convolutions in a model."""
    return sum(node.op_type in ('Conv', 'ConvTranspose') for node in model.graph.node)


def readers_of(model: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Returns the nodes that read a tensor, by its name."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in names_read(node):
            readers.setdefault(name, []).append(node)
    return readers


def names_read(node: onnx.NodeProto) -> list[str]:
    """Returns the names of the tensors that a node reads, in the body of its loop, too."""
    inner = (child for attribute in node.attribute for child in attribute.g.node)
    return [*node.input, *(name for child in inner for name in names_read(child))]


def remove_unread(model: onnx.ModelProto) -> None:
    """Removes the constants of a model that no node reads."""
    graph, read = model.graph, readers_of(model)
    for value in [value for value in graph.initializer if value.name not in read]:
        graph.initializer.remove(value)


def is_last(node: onnx.NodeProto, readers: Mapping[str, Sequence[onnx.NodeProto]]) -> bool:
    """Returns whether the results of a node reach no convolution or product before a selection uses them."""
    left, seen = list(node.output), set()
    while left:
        for reader in readers.get(left.pop(), ()):
            if reader.op_type in PRODUCTS:
                return False
            if reader.op_type not in _CHOOSING and id(reader) not in seen:
                seen.add(id(reader))
                left += reader.output
    return True


def calibration_reader(inputs: Iterable[Mapping[str, np.ndarray]]) -> Any:
    """Returns a reader of inputs, as ONNX Runtime takes them to measure the ranges of tensors."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        left = iter(inputs)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            return next(self.left, None)

    return Reader()
