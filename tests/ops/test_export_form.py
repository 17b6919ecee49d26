"""Convolutions as exports have them: equal to the references, few, and on every road out of torch."""

import subprocess
import sys

import pytest
import torch

from icconv_mm.layers import ICConv2d, PyConv2d
from icconv_mm.ops import export_form, inception_conv, pyconv
from icconv_mm.patterns import DilationPattern, load_pattern

MIXED = [(5, 1, 1), (2, 3, 1), (1, 1, 4), (20, 2, 2), (3, 3, 1), (4, 4, 2), (1, 6, 9)]


def close(got, expected):
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-6 * expected.abs().max().item())


@pytest.mark.parametrize('relu', [False, True])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize(
    'pattern',
    [
        [(7, 1, 1)],
        [(32, 3, 2)],
        MIXED,
        [(1, h, w) for h in (1, 2, 5) for w in (1, 3)],
        [(40, 1, 1), (1, 2, 4), (1, 4, 2)],  # steps of the heights have a common divisor
    ],
)
def test_an_inception_convolution_is_its_reference(pattern, stride, relu):
    flat = DilationPattern.of(pattern).flat
    out_channels = sum(flat[::3])
    x, weight, bias = torch.randn(2, 24, 13, 10), torch.randn(out_channels, 24, 3, 3), torch.randn(out_channels)
    for optional_bias in (bias, None):
        expected = inception_conv.forward(x, weight, optional_bias, flat, stride, 1)
        got = export_form.inception_output(x, weight, optional_bias, flat, stride, relu=relu)
        close(got, expected.relu() if relu else expected)


@pytest.mark.parametrize('dilation', [1, 2])
@pytest.mark.parametrize('stride', [1, 2])
def test_a_pyramidal_convolution_is_its_reference(stride, dilation):
    x = torch.randn(2, 64, 21, 19)
    shapes = [(16, 64, 3, 3), (16, 16, 5, 5), (16, 8, 7, 7), (32, 4, 9, 3)]
    weights, groups, bias = [torch.randn(shape) for shape in shapes], [1, 4, 8, 16], torch.randn(80)
    assert [export_form.depthwise_parts(s[0], 64, g, s[2:]) for s, g in zip(shapes, groups)] == [0, 0, 2, 2]
    counts = [export_form._whole_groups(w, g)[1] for w, g in zip(weights, groups)]  # of 16 outputs or more
    assert counts == [1, 1, 1, 2]  # of 16 outputs or more
    for optional_bias in (bias, None):
        expected = pyconv.forward(x, weights, optional_bias, groups, stride, dilation)
        close(export_form.pyramidal_output(x, weights, optional_bias, groups, stride, dilation), expected)


_CONV = torch.ops.aten.conv2d.default


class _Level(torch.nn.Module):
    """A pyramidal convolution as it is exported."""

    def __init__(self, *arguments):
        super().__init__()
        self.arguments = arguments

    def forward(self, x):
        return export_form.pyramidal_output(x, *self.arguments)


@pytest.mark.parametrize(
    ('level', 'groups', 'stride', 'height', 'rows'),
    [
        ((16, 16, 5, 5), 4, 1, 200, 4),  # the levels of PyConvResNet-50, C_out, C_in / groups, kernel
        ((32, 32, 5, 5), 4, 1, 100, 4),
        ((32, 32, 5, 5), 4, 2, 200, 2),
        ((64, 16, 7, 7), 8, 1, 28, 4),
        ((64, 16, 7, 7), 8, 1, 14, 2),  # no multiple of 4
        ((64, 16, 7, 7), 8, 1, 25, 1),
        ((128, 64, 5, 5), 4, 1, 48, 1),  # 32 outputs in a group
        ((32, 16, 3, 5), 2, 1, 24, 1),  # a block in a group
    ],
)
def test_groups_of_few_outputs_compute_several_rows(level, groups, stride, height, rows):
    parts = (level[0] // groups, *level[1:])
    assert export_form.rows_at_once(parts, groups, stride, -(-height // stride)) == rows
    x, weight, bias = torch.randn(1, level[1] * groups, height, 9), torch.randn(level), torch.randn(level[0])
    for optional_bias in (bias, None):
        arguments = x, [weight], optional_bias, [groups], stride, 1
        program = torch.export.export(_Level(*arguments[1:]), (x,))
        high = max(node.meta['val'].shape[2] for node in program.graph.nodes if node.target == _CONV)
        assert high == -(-height // stride) // rows
        close(program.module()(x), pyconv.forward(*arguments))


def test_published_patterns_become_few_convolutions(published_patterns):
    patterns = load_pattern(published_patterns / 'detection' / 'ic_resnet50_k9.json')
    counts = [inception_conv.exported_convolutions(pattern.flat, pattern.out_channels) for pattern in patterns]
    assert sum(len(pattern) for pattern in patterns) == 238 and sum(counts) <= 150
    assert max(counts[:3]) <= 8  # narrow layers, in which each costs most
    blocks = [sum(-(-n // 16) * 16 for n in pattern.histogram().values()) for pattern in patterns]
    for pattern, padded in zip(patterns, blocks):
        cut, channels = export_form.plan(pattern.flat, pattern.out_channels), pattern.out_channels
        direct = sum(-(-len(part.channels) // 16) * 16 for part in cut.direct) * 9 * channels
        assert direct + (cut.sums.cost(channels) if cut.sums else 0) <= padded * 9 * channels  # never dearer than runs


@pytest.mark.parametrize('block', [16, 32])
def test_whole_blocks_are_one_convolution_each(block, published_patterns):
    """Without row sums; channels are in order, so that nothing is permuted."""
    patterns = load_pattern(published_patterns / 'detection' / 'ic_resnet50_k9.json', align=block)
    for pattern in patterns:
        cut = export_form.plan(pattern.flat, pattern.out_channels)
        assert cut.convolutions == len(pattern) and cut.order == list(range(pattern.out_channels))


@pytest.mark.parametrize('fused', [False, True])
def test_an_exported_program_becomes_standard_operators(fused, tmp_path):
    runtime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    if 'dynamo' not in torch.onnx.export.__code__.co_varnames or not hasattr(torch.onnx, 'ONNXProgram'):
        pytest.skip('this torch exports with TorchScript only')
    layer = ICConv2d(8, 36, MIXED, bias=True), PyConv2d(36, [16, 16], [3, 7], [1, 4], bias=True)
    net = torch.nn.Sequential(*layer).eval().requires_grad_(False)
    if fused:
        icconv_mm = pytest.importorskip('icconv_mm')
        net = icconv_mm.deploy(torch.nn.Sequential(layer[0], torch.nn.ReLU(), layer[1], torch.nn.ReLU()).eval())
    free = torch.export.Dim.DYNAMIC
    program = torch.export.export(net, (torch.randn(2, 8, 20, 18),), dynamic_shapes=({0: free, 2: free, 3: free},))
    assert sum('icconv_mm.' in str(node.target) for node in program.graph.nodes) == 2  # each one operator
    exported = torch.onnx.export(program, verbose=False)
    assert {node.domain for node in exported.model_proto.graph.node} == {''}
    exported.save(str(tmp_path / 'net.onnx'))
    session = runtime.InferenceSession(str(tmp_path / 'net.onnx'))
    x = torch.randn(1, 8, 31, 26)
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    close(torch.from_numpy(got), net(x))


@pytest.mark.parametrize(
    'call', ['torch.jit.trace(net, x, check_trace=False)', 'torch.onnx.export(net, (x,), path, **LEGACY)']
)
def test_the_first_trace_of_a_process(call, tmp_path):
    """Nothing is loaded while a trace records, before any other call."""
    if 'onnx' in call:
        pytest.importorskip('onnx')
    code = (
        'import torch, icconv_mm\n'
        'LEGACY = dict(dynamo=False) if "dynamo" in torch.onnx.export.__code__.co_varnames else {}\n'
        'from icconv_mm.ops.compiled_library import library_module\n'
        'net = icconv_mm.create_model("ic_resnet18", pattern="geometric_d2").eval()\n'
        f'x, path = torch.randn(1, 3, 32, 32), {str(tmp_path / "net.onnx")!r}\n'
        f'{call}\n'
        'assert library_module.cache_info().currsize == 0\n'
    )
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
