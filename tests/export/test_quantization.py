"""Which convolutions of a file keep their floats in 8 bits."""

import pytest
from skips import EXPORTS

pytest.importorskip('onnx')
if not EXPORTS:
    pytest.skip('this torch is too old for exports', allow_module_level=True)

from onnx import helper

from icconv_mm.export.quantization import predictors


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
