"""The operator in torch.compile, torch.export, ONNX and FLOP counters."""

import logging
import warnings

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.layers import ICConv2d

SORTED = [(5, 1, 1), (4, 1, 3), (3, 2, 2)]
MIXED = [(3, 1, 1), (3, 2, 2)] * 2


class Net(nn.Module):
    """Three convolutions, inception or dense: with bias, with stride, with groups."""

    def __init__(self, inception: bool = True, groups: int = 4):
        super().__init__()

        def conv(in_channels, pattern, **settings):
            if inception:
                return ICConv2d(in_channels, 12, pattern, **settings)
            return nn.Conv2d(in_channels, 12, 3, padding=1, **({'bias': False} | settings))

        self.layers = nn.Sequential(
            conv(4, SORTED, bias=True),
            nn.ReLU(),
            conv(12, MIXED, stride=2),
            nn.ReLU(),
            conv(12, SORTED, groups=groups),
        )

    def forward(self, x):
        return self.layers(x)


@pytest.fixture(autouse=True)
def _forget_compilations():
    torch._dynamo.reset()


@pytest.fixture
def net():
    return Net().eval()


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
    assert sum('icconv_mm.inception_conv2d' in node for node in nodes) == 3


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
    dynamic = hasattr(torch.export, 'Dim')  # since torch 2.2
    settings = {'dynamic_shapes': {'x': {0: torch.export.Dim('batch')}}} if dynamic else {}
    program = torch.export.export(net, (x,), **settings)
    assert sum('inception_conv2d' in str(node.target) for node in program.graph.nodes) == 3
    module = program.module()
    other = torch.randn(5 if dynamic else 2, 4, 12, 10)
    torch.testing.assert_close(module(other), net(other))


def test_torchscript_trace(net, x):
    """A trace consists of torch's own operators: it runs where this package is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', torch.jit.TracerWarning)
        traced = torch.jit.trace(net, x)
    assert 'icconv_mm::' not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), net(x))


@pytest.mark.parametrize('dynamo', [False, True])
def test_onnx_has_standard_convolutions(net, x, dynamo, tmp_path, monkeypatch):
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
    # one convolution per dilation; two for one that has three channels of one group and fewer of another
    assert [node.op_type for node in nodes].count('Conv') == 3 + 2 + (2 + 2 + 1)
    session = runtime.InferenceSession(str(path))
    for batch in (x,) if dynamo else (x, torch.randn(1, 4, 7, 9)):
        got = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
        assert abs(got - net(batch).detach().numpy()).max() <= 1e-4


def test_mmengine_counts_the_flops_of_the_dense_network(caplog):
    get_model_complexity_info = pytest.importorskip('mmengine.analysis').get_model_complexity_info
    counts = []
    for inception in (True, False):
        with caplog.at_level(logging.CRITICAL):
            info = get_model_complexity_info(
                Net(inception).eval(), input_shape=(4, 12, 10), show_table=False, show_arch=False
            )
        counts.append((info['flops'], info['activations'], info['params']))
    assert counts[0] == counts[1]
    assert counts[0][0] == 12 * 10 * 12 * 4 * 9 + 6 * 5 * 12 * 12 * 9 + 6 * 5 * 12 * 3 * 9


def test_torch_counts_the_flops_of_the_dense_network(x):
    counts = []
    for inception in (True, False):
        net = Net(inception, groups=1)
        with FlopCounterMode(display=False) as forward:
            out = net(x)
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
        counts.append((forward.get_total_flops(), backward.get_total_flops()))
    assert counts[0] == counts[1]
    assert counts[0][0] > 0
