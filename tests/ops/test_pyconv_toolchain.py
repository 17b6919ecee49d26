"""The operator in torch.compile, torch.export, ONNX and FLOP counters."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.layers import PyConv2d

# input channels, channels, kernels and groups of three layers, and the other arguments
LAYERS = (
    (4, [4, 4, 8], [3, 5, 7], [1, 2, 4], {'bias': True}),
    (16, [8, 8], [3, 9], [4, 8], {'stride': 2}),
    (16, [6], [3], [2], {'dilation': 2}),
)


class Dense(nn.Module):
    """The same as a list of ordinary convolutions."""

    def __init__(self, layer: PyConv2d):
        super().__init__()
        self.levels = layer.pyconv_levels

    def forward(self, x):
        return torch.cat([level(x) for level in self.levels], 1)


def make_net() -> nn.Sequential:
    layers = []
    for *arguments, settings in LAYERS:
        layers += [PyConv2d(*arguments, **settings), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def make_dense(net: nn.Sequential) -> nn.Sequential:
    return nn.Sequential(*(Dense(layer) if isinstance(layer, PyConv2d) else layer for layer in net))


@pytest.fixture(autouse=True)
def _forget_compilations():
    torch._dynamo.reset()


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def x():
    return torch.randn(2, 4, 12, 10)


def check_compiled(net, x, backend, **settings):
    compiled = torch.compile(net, backend=backend, fullgraph=True, **settings)
    for batch in (x, torch.randn(3, 4, 9, 14), x.to(memory_format=torch.channels_last)):
        expected = net(batch)
        got = compiled(batch)
        torch.testing.assert_close(got, expected)
        assert got.stride() == expected.stride()
        grads = [torch.autograd.grad(out.square().sum(), tuple(net.parameters())) for out in (got, expected)]
        torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dynamic', [False, True])
def test_compile_traces_one_graph(net, x, dynamic):
    check_compiled(net, x, 'aot_eager', dynamic=dynamic)


def test_compile_keeps_the_operator(net, x):
    """The operator stays one node, so that a compiled backend serves it."""
    nodes = []

    def backend(graph, _):
        nodes.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(net, backend=backend, fullgraph=True)(x)
    assert sum('icconv_mm.pyconv2d' in node for node in nodes) == 2  # one level is an ordinary convolution


def test_compile_once_for_all_sizes(net):
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    for height, width in ((12, 10), (9, 14), (21, 33)):
        compiled(torch.randn(2, 4, height, width))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compile_with_inductor(net, x):
    check_compiled(net, x, 'inductor')


def test_compile_under_autocast(net, x):
    def run(x):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return net(x)

    got = torch.compile(run, backend='aot_eager', fullgraph=True)(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, run(x))


def test_export(net, x):
    program = torch.export.export(net, (x,))
    assert sum('pyconv2d' in str(node.target) for node in program.graph.nodes) == 2
    module = program.module() if callable(getattr(program, 'module', None)) else program
    torch.testing.assert_close(module(x), net(x))


def test_torchscript_trace(net, x):
    """A trace consists of torch's own operators: it runs where this package is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(net, x)
    assert 'icconv_mm::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), net(x))


@pytest.mark.parametrize('dynamo', [False, True])
def test_onnx_has_standard_convolutions(net, x, dynamo, tmp_path):
    onnx = pytest.importorskip('onnx')
    runtime = pytest.importorskip('onnxruntime')
    settings = {'input_names': ['x']}
    if dynamo:
        pytest.importorskip('onnxscript')
        if not hasattr(torch.onnx, 'ONNXProgram') or 'dynamo' not in torch.onnx.export.__code__.co_varnames:
            pytest.skip('this torch exports with TorchScript only')
        settings['dynamo'] = True
    else:
        settings['dynamic_axes'] = {'x': [0, 2, 3]}
        if 'dynamo' in torch.onnx.export.__code__.co_varnames:
            settings['dynamo'] = False
    path = tmp_path / 'net.onnx'
    torch.onnx.export(net, (x,), str(path), **settings)
    nodes = onnx.load(path).graph.node
    assert {node.domain for node in nodes} <= {'', 'ai.onnx'}
    assert [node.op_type for node in nodes].count('Conv') == 3 + 2 + 1  # one per level
    session = runtime.InferenceSession(str(path))
    for batch in (x,) if dynamo else (x, torch.randn(1, 4, 7, 9)):
        got = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
        assert abs(got - net(batch).detach().numpy()).max() <= 1e-4


def test_mmengine_counts_the_flops_of_the_levels(net, caplog):
    get_model_complexity_info = pytest.importorskip('mmengine.analysis').get_model_complexity_info
    counts = []
    for each in (net, make_dense(net)):
        with caplog.at_level(logging.CRITICAL):
            info = get_model_complexity_info(each, input_shape=(4, 12, 10), show_table=False, show_arch=False)
        counts.append((info['flops'], info['params']))
    assert counts[0] == counts[1]
    first = 12 * 10 * (4 * 4 * 9 + 4 * 2 * 25 + 8 * 1 * 49)
    second, third = 6 * 5 * (8 * 4 * 9 + 8 * 2 * 81), 6 * 5 * 6 * 8 * 9
    assert counts[0][0] == first + second + third


def test_torch_counts_the_flops_of_the_levels(net, x):
    counts = []
    for each in (net, make_dense(net)):
        with FlopCounterMode(display=False) as counter:
            each(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_torch_counts_the_flops_of_the_gradients(net, x):
    """Each of the two gradients costs what the output costs."""
    net = net[:4]
    with FlopCounterMode(display=False) as forward:
        out = net(x.requires_grad_())
    with FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops() > 0
