"""Deformable convolutions in exported files: steps that every runtime has, or one operator."""

import numpy as np
import pytest
import torch
from skips import EXPORTS
from torch import nn

pytest.importorskip('onnxscript')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

from icconv_mm.app.export import run
from icconv_mm.app.export.onnx_files import to_onnx
from icconv_mm.app.export.writers import to_openvino
from icconv_mm.errors import ArgumentError
from icconv_mm.layers import DeformConv2d, ModulatedDeformConv2d

SIZES = [(2, 17, 21), (1, 30, 26)]


@pytest.fixture(scope='module')
def network():
    torch.manual_seed(0)
    layers = [
        DeformConv2d(8, 12, 3, padding=1, groups=2, deform_groups=2),
        ModulatedDeformConv2d(12, 6, 3, padding=1, bias=False),
        DeformConv2d(6, 12, 3, padding=1),
        # the last, as torch's exporter is slow on maps whose sizes follow from others
        ModulatedDeformConv2d(12, 6, 3, stride=2, padding=2, dilation=2, groups=3, deform_groups=4),
    ]
    for layer in layers:
        nn.init.normal_(layer.conv_offset.weight, std=0.3)
    nn.init.normal_(layers[3].bias)
    return nn.Sequential(*layers).requires_grad_(False).eval()


@pytest.fixture(scope='module', params=[False, True], ids=['steps', 'operator'])
def model(request, network):
    free = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(network, (torch.randn(2, 8, 20, 24),), dynamic_shapes=(free,), strict=False)
    exported = to_onnx(program, ['x'], ['y'], deform_conv=request.param)
    kinds = {node.op_type for node in exported.graph.node}
    assert ('DeformConv' in kinds, 'GridSample' in kinds) == (request.param, not request.param)
    assert exported.opset_import[0].version == (19 if request.param else 18)
    return exported


@pytest.mark.parametrize('size', SIZES)
def test_in_onnx_runtime(network, model, size):
    onnxruntime = pytest.importorskip('onnxruntime')
    x = torch.randn(size[0], 8, *size[1:])
    (output,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {'x': x.numpy()})
    np.testing.assert_allclose(output, network(x).numpy(), rtol=1e-4, atol=5e-5)


def test_in_openvino(network, model):
    openvino = pytest.importorskip('openvino')
    converted = to_openvino(model)
    is_deformable = any(node.get_type_name() == 'DeformableConvolution' for node in converted.get_ops())
    assert is_deformable == (model.opset_import[0].version == 19)
    compiled = openvino.Core().compile_model(converted, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    for images, *size in SIZES:
        x = torch.randn(images, 8, *size)
        np.testing.assert_allclose(compiled([x.numpy()])[0], network(x).numpy(), rtol=1e-4, atol=5e-5)


def test_the_operator_is_of_onnx_alone(tmp_path):
    with pytest.raises(ArgumentError, match="expected to='onnx', got 'openvino'"):
        run.file_of('openvino', tmp_path / 'a.xml', 'a.pth', int8=None, half=False, operator=False, deform_conv=True)
