"""The operators of both convolutions in torch.compile, torch.export, ONNX and FLOP counters."""

import logging
import warnings
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils.flop_counter import FlopCounterMode

from icconv_mm.layers import ICConv2d, PyConv2d
from icconv_mm.ops import export_form, inception_conv2d, pyconv2d
from icconv_mm.ops.inception_conv import exported_convolutions
from icconv_mm.patterns import DilationPattern

SORTED = [(5, 1, 1), (4, 1, 3), (3, 2, 2)]
MIXED = [(3, 1, 1), (3, 2, 2)] * 2
# input channels, channels, kernels and groups of three layers, and the other arguments
PYRAMIDS = (
    (4, [4, 4, 8], [3, 5, 7], [1, 2, 4], {'bias': True}),
    (16, [8, 8], [3, 9], [4, 8], {'stride': 2}),
    (16, [6], [3], [2], {'dilation': 2}),
)
SORTED_FLAT, MIXED_FLAT = (DilationPattern.of(runs).flat for runs in (SORTED, MIXED))

# a level, or the depthwise convolutions that stand for it and a sum of each
PARTS = [
    export_form.depthwise_parts(channels, layer[0], groups, (kernel, kernel))
    for layer in PYRAMIDS
    for channels, kernel, groups in zip(*layer[1:4])
]
EXPORTED_LEVELS = sum(2 * parts or 1 for parts in PARTS)


def inception_net(dense: bool = False, groups: int = 4) -> nn.Sequential:
    """Three convolutions, inception or dense: with bias, with stride, with groups."""

    def conv(in_channels, pattern, **settings):
        if dense:
            return nn.Conv2d(in_channels, 12, 3, padding=1, **({'bias': False} | settings))
        return ICConv2d(in_channels, 12, pattern, **settings)

    layers = conv(4, SORTED, bias=True), conv(12, MIXED, stride=2), conv(12, SORTED, groups=groups)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).eval()


class Levels(nn.Module):
    """A pyramidal convolution as a list of ordinary convolutions."""

    def __init__(self, layer: PyConv2d):
        super().__init__()
        self.levels = layer.pyconv_levels

    def forward(self, x):
        return torch.cat([level(x) for level in self.levels], 1)


def pyramidal_net(dense: bool = False) -> nn.Sequential:
    """Three pyramidal convolutions, or their levels one by one."""
    layers = []
    for *arguments, settings in PYRAMIDS:
        layer = PyConv2d(*arguments, **settings)
        layers += [Levels(layer) if dense else layer, nn.ReLU()]
    return nn.Sequential(*layers).eval()


class Kind(NamedTuple):
    make: Callable[..., nn.Sequential]
    operator: str
    nodes: int  # of the operator; one level is an ordinary convolution
    convolutions: int  # in ONNX
    flops: int  # as mmengine counts them
    counted: tuple[str, ...]  # what mmengine counts as for the dense network


KINDS = {
    'inception': Kind(
        inception_net,
        'inception_conv2d',
        3,
        # tests/ops/test_export_form.py; two for a dilation that has three channels of one group and fewer of another
        exported_convolutions(SORTED_FLAT, 4) + exported_convolutions(MIXED_FLAT, 12) + (2 + 2 + 1),
        12 * 10 * 12 * 4 * 9 + 6 * 5 * 12 * 12 * 9 + 6 * 5 * 12 * 3 * 9,
        ('flops', 'activations', 'params'),
    ),
    'pyramidal': Kind(
        pyramidal_net,
        'pyconv2d',
        2,
        EXPORTED_LEVELS,
        12 * 10 * (4 * 4 * 9 + 4 * 2 * 25 + 8 * 1 * 49) + 6 * 5 * (8 * 4 * 9 + 8 * 2 * 81) + 6 * 5 * 6 * 8 * 9,
        ('flops', 'params'),
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def net(kind):
    return kind.make()


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


def test_compile_keeps_the_operator(kind, net, x):
    """The operator stays one node, so that a compiled backend serves it."""
    nodes = []

    def backend(graph, _):
        nodes.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compile(net, backend=backend, fullgraph=True)(x)
    assert sum(f'icconv_mm.{kind.operator}' in node for node in nodes) == kind.nodes


def test_compile_once_for_all_sizes(net):
    counter = CompileCounter()
    compiled = torch.compile(net, backend=counter, fullgraph=True, dynamic=True)
    for height, width in ((12, 10), (9, 14), (21, 33)):
        compiled(torch.randn(2, 4, height, width))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compile_with_inductor(net, x, monkeypatch):
    monkeypatch.setenv('CI', '1')  # then inductor refuses an operator that has a decomposition, unless told to keep it
    check_compiled(net, x, 'inductor')


def test_compile_under_autocast(net, x):
    def run(x):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return net(x)

    got = torch.compile(run, backend='aot_eager', fullgraph=True)(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, run(x))


def test_export(kind, net, x):
    dynamic = kind.operator == 'inception_conv2d' and hasattr(torch.export, 'Dim')  # since torch 2.2
    settings = {'dynamic_shapes': ({0: torch.export.Dim('batch')},)} if dynamic else {}
    program = torch.export.export(net, (x,), **settings)
    assert sum(kind.operator in str(node.target) for node in program.graph.nodes) == kind.nodes
    module = program.module() if callable(getattr(program, 'module', None)) else program
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
def test_onnx_has_standard_convolutions(kind, net, x, dynamo, tmp_path):
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
    assert [node.op_type for node in nodes].count('Conv') == kind.convolutions
    session = runtime.InferenceSession(str(path))
    for batch in (x,) if dynamo else (x, torch.randn(1, 4, 7, 9)):
        got = session.run(None, {session.get_inputs()[0].name: batch.numpy()})[0]
        assert abs(got - net(batch).detach().numpy()).max() <= 1e-4


def test_mmengine_counts_the_flops_of_the_dense_network(kind, caplog):
    get_model_complexity_info = pytest.importorskip('mmengine.analysis').get_model_complexity_info
    counts = []
    for dense in (False, True):
        with caplog.at_level(logging.CRITICAL):
            net = kind.make(dense)
            info = get_model_complexity_info(net, input_shape=(4, 12, 10), show_table=False, show_arch=False)
        counts.append([info[key] for key in kind.counted])
    assert counts[0] == counts[1]
    assert counts[0][0] == kind.flops


# torch counts the gradients of convolutions with groups as if these were one
@pytest.mark.parametrize(('make', 'passes'), [(lambda dense: inception_net(dense, groups=1), 2), (pyramidal_net, 1)])
def test_torch_counts_the_flops_of_the_dense_network(make, passes, x):
    counts = []
    for dense in (False, True):
        with FlopCounterMode(display=False) as forward:
            out = make(dense)(x)
        with FlopCounterMode(display=False) as backward:
            out.sum().backward()
        counts.append((forward.get_total_flops(), backward.get_total_flops())[:passes])
    assert counts[0] == counts[1]
    assert counts[0][0] > 0


PATTERN, BIAS = [(1, 1, 1), (2, 2, 3)], torch.linspace(-1, 1, 3)


@pytest.mark.parametrize(
    ('run', 'shapes'),
    [
        (lambda x, weight: inception_conv2d(x, weight, BIAS, PATTERN), [(3, 4, 3, 3)]),
        (lambda x, weight: inception_conv2d(x, weight, BIAS, [(3, 1, 2)]), [(3, 4, 3, 3)]),
        (lambda x, *weights: pyconv2d(x, weights, BIAS, [1, 2]), [(1, 4, 3, 3), (2, 2, 5, 5)]),
        (lambda x, weight: pyconv2d(x, [weight], BIAS, [1]), [(3, 4, 3, 3)]),
    ],
)
def test_transforms_of_functions(run, shapes):
    """All of ``torch.func``: the convolutions are compositions of torch's own there."""
    x, weights = torch.randn(3, 2, 4, 6, 5), [torch.randn(shape) for shape in shapes]

    def loss(weights, x):
        return run(x, *weights).square().mean()

    leaves = [weight.clone().requires_grad_() for weight in weights]
    want = torch.autograd.grad(loss(leaves, x[0]), leaves)
    torch.testing.assert_close(torch.func.grad(loss)(weights, x[0]), list(want))
    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    torch.testing.assert_close([grads[0] for grads in gradients], list(want))

    def of_x(x):  # linear but for the bias
        return run(x, *weights)

    without_bias = of_x(x[1]) - BIAS[:, None, None]
    torch.testing.assert_close(torch.func.vmap(of_x)(x), torch.stack([of_x(one) for one in x]))
    torch.testing.assert_close(torch.func.jvp(of_x, (x[0],), (x[1],))[1], without_bias)
    jacobian = torch.func.jacrev(of_x)(x[0])
    torch.testing.assert_close((jacobian * x[1]).sum((-1, -2, -3, -4)), without_bias)
