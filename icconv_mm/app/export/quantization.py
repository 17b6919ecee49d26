"""Writes exported models with 8-bit integer convolutions and matrix products, except the last ones of heads.

The layers that predict boxes, scores and classes, and the decoding after them, are not quantised: they cost little, and
rounding would move boxes by pixels. ONNX Runtime also keeps in eight bits what lies between quantised layers.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from icconv_mm.app.export import writers
from icconv_mm.app.export.onnx_files import PRODUCTS, calibration_reader, is_last, readers_of
from icconv_mm.app.export.preparation import inputs_of
from icconv_mm.errors import MissingLibraryError

_IMAGES = 64  # to measure ranges, at most
_OPENVINO_TYPES = ('Convolution', 'GroupConvolution', 'ConvolutionBackpropData', 'MatMul')
_BETWEEN = ('Add', 'Concat', 'Gather', 'MaxPool', 'Relu', 'Resize')


def write(model: Any, description: Mapping[str, Any], to: str, path: Path, images: Sequence[Path]) -> None:
    """Writes an ``onnx.ModelProto`` in 8 bits: for 'onnx' by ONNX Runtime's quantiser, for 'openvino' by NNCF.

    The ranges of activations are measured on ``images``.

    Raises:
        MissingLibraryError: NNCF is not installed.
    """
    kept = predictors(model)
    inputs = inputs_of(images[:_IMAGES], description)
    _QUANTIZED[to](model, description, path, inputs, kept)


def predictors(model: Any) -> list[str]:
    """Returns names of the convolutions and products whose results reach no other one before a selection uses them."""
    readers = readers_of(model)
    return [node.name for node in model.graph.node if node.op_type in PRODUCTS and is_last(node, readers)]


def float_nodes(model: Any, kept: Sequence[str]) -> list[str]:
    """Returns names of the nodes that ONNX Runtime computes in floats, among them ``kept``, the predictors.

    The other convolutions and products are in eight bits, and so are the nodes between them, which read results in
    eight bits alone.
    """
    readers = readers_of(model)
    names, eight_bits = [], set()
    for node in model.graph.node:  # a node comes after those that it reads
        if node.op_type in PRODUCTS:
            quantised = node.name not in kept
        else:
            # indices, scales and sizes are no results of layers
            values = node.input[:1] if node.op_type in ('Gather', 'Resize') else node.input
            quantised = node.op_type in _BETWEEN and eight_bits.issuperset(values) and not is_last(node, readers)
        if quantised:
            eight_bits.update(node.output)
        else:
            names.append(node.name)
    return names


def by_onnxruntime(model: Any, path: Path, inputs: Iterator[dict[str, np.ndarray]], kept: list[str]) -> None:
    """Writes an ``onnx.ModelProto`` in 8 bits to ``path``, except the nodes ``kept``; ``inputs`` set the ranges."""
    import onnx
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, 'model.onnx')
        onnx.save(model, str(source))
        quantization.quantize_static(
            str(source),
            str(path),
            calibration_reader(inputs),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=[*PRODUCTS, *_BETWEEN],
            nodes_to_exclude=float_nodes(model, kept),
            per_channel=True,
            reduce_range=True,  # avoids overflow on processors without 8-bit instructions
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def by_nncf(model: Any, inputs: list[dict[str, np.ndarray]], kept: list[str]) -> Any:
    """Returns an OpenVINO model in 8 bits, except the nodes ``kept``; ``inputs`` set the ranges."""
    try:
        import nncf
    except ImportError:
        raise MissingLibraryError(
            "int8 with to='openvino' needs nncf, which is not installed: pip install nncf"
        ) from None
    others = {operation.get_type_name() for operation in model.get_ops()} - set(_OPENVINO_TYPES)
    names = [operation.get_friendly_name() for operation in model.get_ops()]
    last = [name for name in names if name.split('/')[0] in kept]  # a bias makes two operations of one
    ignored = nncf.IgnoredScope(names=last, types=sorted(others), validate=False)
    settings = dict(subset_size=len(inputs), preset=nncf.QuantizationPreset.MIXED, ignored_scope=ignored)
    return nncf.quantize(model, nncf.Dataset(inputs), **settings)


_QUANTIZED = {
    'onnx': lambda model, description, path, inputs, kept: by_onnxruntime(model, path, inputs, kept),
    'openvino': lambda model, description, path, inputs, kept: writers.write_openvino(
        by_nncf(writers.to_openvino(model), list(inputs), kept), description, path
    ),
}
