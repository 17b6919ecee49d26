"""Which nodes of a file keep their floats in 8 bits."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from skips import EXPORTS

pytest.importorskip('onnx')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

import onnx
from onnx import helper

from icconv_mm.app.export import quantization
from icconv_mm.app.export.quantization import float_nodes, predictors
from icconv_mm.backbones import ICResNet


def test_the_last_convolutions_before_a_choice_are_predictors():
    """A stem that two convolutions read; the best of what one of them gives feed a product, the other is an output."""
    nodes = [
        helper.make_node('Conv', ['image', 'w'], ['stem'], name='stem'),
        helper.make_node('Relu', ['stem'], ['map']),
        helper.make_node('Conv', ['map', 'w'], ['scores'], name='scores'),
        helper.make_node('Conv', ['map', 'w'], ['logits'], name='logits'),
        helper.make_node('Resize', ['logits'], ['large']),
        helper.make_node('TopK', ['scores', 'k'], ['best', 'places']),
        helper.make_node('MatMul', ['best', 'm'], ['hidden'], name='hidden'),
        helper.make_node('Relu', ['hidden'], ['features']),
        helper.make_node('MatMul', ['features', 'm'], ['classes'], name='classes'),
    ]
    model = helper.make_model(helper.make_graph(nodes, 'network', [], []))
    assert predictors(model) == ['scores', 'logits', 'classes']


def test_decoding_keeps_floats():
    """The same types of nodes before the predictors are in eight bits, but not where they also read floats."""
    nodes = [
        helper.make_node('Sub', ['image', 'mean'], ['centred'], name='centred'),
        helper.make_node('Conv', ['centred', 'w'], ['fine'], name='fine'),
        helper.make_node('Conv', ['fine', 'w'], ['coarse'], name='coarse'),
        helper.make_node('Resize', ['coarse', '', '', 'size'], ['large'], name='large'),
        helper.make_node('Add', ['fine', 'large'], ['sum'], name='sum'),
        helper.make_node('Add', ['sum', 'centred'], ['mixed'], name='mixed'),
        helper.make_node('Conv', ['mixed', 'w'], ['map'], name='map'),
        helper.make_node('Conv', ['map', 'w'], ['deltas'], name='deltas'),
        helper.make_node('Relu', ['map'], ['drawn'], name='drawn'),  # reaches no other convolution
        helper.make_node('GatherElements', ['deltas', 'places'], ['best'], name='best'),
        helper.make_node('Add', ['best', 'anchors'], ['boxes'], name='boxes'),
        helper.make_node('Concat', ['boxes', 'boxes'], ['corners'], name='corners', axis=1),
        helper.make_node('RoiAlign', ['sum', 'corners', 'batch'], ['regions'], name='regions'),
        helper.make_node('Gemm', ['regions', 'w'], ['hidden'], name='hidden'),
        helper.make_node('Relu', ['hidden'], ['features'], name='features'),
        helper.make_node('Gemm', ['features', 'w'], ['classes'], name='classes'),
    ]
    model = helper.make_model(helper.make_graph(nodes, 'network', [], []))
    layers = predictors(model)
    assert layers == ['deltas', 'classes']
    eight_bits = ['fine', 'coarse', 'large', 'sum', 'map', 'hidden', 'features']
    assert float_nodes(model, layers) == [node.name for node in nodes if node.name not in eight_bits]


class Scores(torch.nn.Module):
    """A backbone, a predictor, and operators after it that also occur in the backbone."""

    def __init__(self):
        super().__init__()
        self.backbone = ICResNet(18, 'geometric_d4', base_channels=16, out_indices=(3,))
        self.predictor = torch.nn.Conv2d(128, 4, 1)

    def forward(self, image):
        scores = self.predictor(self.backbone(image.float() / 255)[0])
        return torch.cat([scores.relu() + scores, scores], 1)


@pytest.mark.slow
def test_a_backbone_stays_in_eight_bits_from_its_first_to_its_last_layer(tmp_path):
    ort = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    from icconv_mm.app.export.onnx_files import to_onnx
    from icconv_mm.deployment import deploy

    cv2.imwrite(str(tmp_path / 'a.png'), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    image = torch.from_numpy(cv2.imread(str(tmp_path / 'a.png'))).permute(2, 0, 1)[None]
    with torch.no_grad():
        program = torch.export.export(deploy(Scores().eval()), (image,), strict=False)
    model = to_onnx(program, ['image'], ['scores'])
    rule = {'divisor': 1, 'pads': False, 'sized': False, 'fixed': None}
    file = tmp_path / 'network.onnx'
    quantization.write(model, {'steps': [], 'batch': rule}, 'onnx', file, [tmp_path / 'a.png'])

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / 'optimised.onnx')
    ort.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    counts = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert (counts['Relu'], counts['Add'], counts['Concat'], counts['Conv']) == (1, 1, 1, 1)  # predictor and decoding
    assert counts['DequantizeLinear'] <= 3 and counts['QLinearAdd'] == 8 and counts['QLinearConcat'] > 8
