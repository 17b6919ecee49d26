"""What computes in float16, and what stays in float32."""

import numpy as np
import pytest
from skips import EXPORTS

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from icconv_mm.app.export.half import to_half

SIZE = 16


def detector(scale=1.0):
    """A backbone of two convolutions; a predictor of distances, and the corner at 1,000 pixels that they move."""
    random = np.random.default_rng(0)
    weights = {
        'mean': np.array([127.0], np.float32),
        'w1': random.normal(0, 0.1, (8, 3, 3, 3)).astype(np.float32),
        'b1': random.normal(0, 1, 8).astype(np.float32),
        'w2': (scale * random.normal(0, 0.1, (8, 8, 3, 3))).astype(np.float32),
        'w3': (random.normal(0, 0.1, (4, 8, 1, 1)) / scale).astype(np.float32),
        'anchor': np.array([1000.3], np.float32),
    }
    nodes = [
        helper.make_node('Cast', ['image'], ['pixels'], name='pixels', to=TensorProto.FLOAT),
        helper.make_node('Sub', ['pixels', 'mean'], ['centred'], name='centred'),
        helper.make_node('Conv', ['centred', 'w1', 'b1'], ['fine'], name='fine', pads=[1] * 4),
        helper.make_node('Relu', ['fine'], ['map'], name='map'),
        helper.make_node('Conv', ['map', 'w2'], ['inner'], name='inner', pads=[1] * 4),
        helper.make_node('Add', ['inner', 'map'], ['sum'], name='sum'),
        helper.make_node('Conv', ['sum', 'w3'], ['distances'], name='distances'),
        helper.make_node('Sub', ['anchor', 'distances'], ['corners'], name='corners'),
    ]
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, [1, 3, SIZE, SIZE])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width, SIZE, SIZE])
        for name, width in (('corners', 4), ('sum', 8))
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, 'network', [image], outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)


def image(seed=0):
    return {'image': np.random.default_rng(seed).integers(0, 256, (1, 3, SIZE, SIZE), np.uint8)}


def results(model):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    return dict(zip(['corners', 'sum'], session.run(None, image())))


def in_half(model):
    return {node.name for node in model.graph.node if node.output[0].endswith('_half') and node.op_type != 'Cast'}


def test_layers_are_in_float16_and_decoding_is_not():
    model, expected = detector(), results(detector())
    assert to_half(model, [image()]) == 0
    onnx.checker.check_model(model, full_check=True)
    assert in_half(model) == {'fine', 'map', 'inner', 'sum', 'distances'}
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    halves = dict.fromkeys(('w1_half', 'b1_half', 'w2_half', 'w3_half'), TensorProto.FLOAT16)
    assert kinds == {'mean': TensorProto.FLOAT, 'anchor': TensorProto.FLOAT, **halves}
    outputs = results(model)
    assert all(value.dtype == np.float32 for value in outputs.values())
    assert 0 < np.abs(outputs['sum'] - expected['sum']).max() <= 2e-3 * np.abs(expected['sum']).max()
    assert np.abs(outputs['corners'] - expected['corners']).max() <= 2e-3 * np.abs(1000.3 - expected['corners']).max()


@pytest.mark.parametrize(
    ('scale', 'calibration', 'count', 'layers'),
    [
        (1000.0, image(), 2, {'fine', 'map'}),  # results beyond float16
        (1e-6, {'image': image()['image'] * 0 + 127}, 1, {'fine', 'map', 'inner', 'sum'}),  # weights; results are small
    ],
)
def test_a_layer_that_float16_cannot_hold_stays_in_float32(scale, calibration, count, layers):
    model, expected = detector(scale), results(detector(scale))['sum']
    assert scale < 1 or np.abs(expected).max() > 65504
    assert to_half(model, [calibration]) == count and in_half(model) == layers
    np.testing.assert_allclose(results(model)['sum'], expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max())
