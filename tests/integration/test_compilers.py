"""Networks, necks and heads in torch.compile, torch.export, traces and ONNX; of operators see tests/ops."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from deployed_checks import flat, trained
from random_weights import normal
from torch import Tensor, nn

from icconv_mm import deploy
from icconv_mm.backbones import ICResNet, PyConvHGResNet, PyConvResNet
from icconv_mm.necks import FPT, SEPC, PConv
from icconv_mm.ops import use_backend

NEWER_ONNX = 'dynamo' in torch.onnx.export.__code__.co_varnames and hasattr(torch.onnx, 'ONNXProgram')
# channels and groups of an eighth of the network
TINY = {'base_channels': 16, 'stage_groups': [(1, 2, 4, 4), (1, 2, 4), (1, 4), (1,)]}
TINY_HG = {'base_channels': 16, 'stage_groups': [(4, 4, 4, 4), (4, 8, 8), (4, 8), (4,)]}
SHORT = {'num_stages': 2, 'strides': (1, 2), 'dilations': (1, 1), 'out_indices': (0, 1)}


def fpt(*channels: int, **settings: object) -> nn.Module:
    """As after training: the norms of the grounding transformers are no longer zero."""
    return normal(FPT(list(channels), 16, norm_cfg={'type': 'GN', 'num_groups': 4}, drop_prob=0.0, **settings), 0.2)


def head(train: bool = False) -> nn.Module:
    pytest.importorskip('mmseg')
    from icconv_mm.tasks.semantic import PyConvHead

    sizes = {'in_channels': 32, 'channels': 16, 'pyconv_channels': 64, 'num_classes': 5}
    head = trained(PyConvHead(**sizes, in_index=0, norm_cfg={'type': 'BN'})).train(train)
    head.dropout.eval()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0
    return head


class Case(NamedTuple):
    make: Callable[[], nn.Module]
    shapes: list[tuple[int, ...]]
    in_a_list: bool = False  # as necks and heads get their maps
    others: list[tuple[int, ...]] | None = None  # shapes of other maps that a file in ONNX takes
    operators: dict[str, int] | None = None  # in an exported program
    deployed: bool = False


FINE, COARSE = (2, 4, 13, 11), (2, 6, 7, 6)
FLAT = [(2, 8, 13, 11)] * 2
LEVELS = [(1, 4, 17, 20), (1, 4, 9, 10), (1, 4, 5, 5), (1, 4, 3, 3)]
CASES = {
    'ICResNet': Case(lambda: ICResNet(18, 'geometric_d4', base_channels=16), [(1, 3, 64, 64)]),
    'PyConvResNet': Case(lambda: PyConvResNet(50, **TINY), [(2, 3, 64, 96)], others=[(1, 3, 96, 64)]),
    'PyConvHGResNet': Case(lambda: PyConvHGResNet(50, **TINY_HG), [(2, 3, 64, 96)], others=[(1, 3, 96, 64)]),
    # self- and grounding transformers mix, rendering or grounding looks at windows
    'FPT': Case(lambda: fpt(4, 6), [FINE, COARSE], True, operators={'mixture_attention': 3, 'window_attention': 0}),
    'FPT of one size': Case(
        lambda: fpt(8, 8, strides=[8, 8], window=3),
        FLAT,
        True,
        operators={'mixture_attention': 2, 'window_attention': 1},
    ),
    'PConv': Case(lambda: PConv(4, 6, 4, ibn=True), LEVELS, True),
    'SEPC': Case(lambda: SEPC(4, 6, 4, ibn=True), LEVELS, True),
    'PyConvHead': Case(head, [(2, 32, 12, 11)], True),
    'PyConvHead in training': Case(lambda: head(train=True), [(2, 32, 12, 11)], True),
    'deployed ICResNet': Case(
        lambda: trained(ICResNet(18, 'geometric_d3', base_channels=16)),
        [(1, 3, 64, 64)],
        operators={'inception_conv2d_relu': 8, 'batch_norm': 0},
        deployed=True,
    ),
    'deployed PyConvResNet': Case(
        lambda: trained(PyConvResNet(18, base_channels=64, **SHORT)),
        [(1, 3, 64, 64)],
        operators={'pyconv2d_relu': 4, 'batch_norm': 0},
        deployed=True,
    ),
}
DEPLOYED = [name for name, case in CASES.items() if case.deployed]


def slow_but(*fast: str, of: object) -> list:
    return [pytest.param(name, marks=[] if name in fast else pytest.mark.slow) for name in of]


class Flat(nn.Module):
    """Takes maps one by one, and gives its results in one tuple."""

    def __init__(self, net: nn.Module, in_a_list: bool):
        super().__init__()
        self.net, self.in_a_list, self.training = net, in_a_list, net.training

    def forward(self, *maps: Tensor) -> tuple[Tensor, ...]:
        return tuple(flat(self.net(list(maps) if self.in_a_list else maps[0])))


def built(name: str) -> tuple[nn.Module, nn.Module, list[Tensor]]:
    """What a tool gets, what computes the expected results, and the maps."""
    case = CASES[name]
    net = case.make()
    net = net if 'training' in name else net.eval()
    taken = deploy(net) if case.deployed else net
    return Flat(taken, case.in_a_list), Flat(net, case.in_a_list), [torch.randn(shape) for shape in case.shapes]


def same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...], tight: bool = False) -> None:
    """To 1e-4 of the largest value of each; ``tight`` as torch compares, too."""
    assert len(got) == len(expected) > 0
    if tight:
        torch.testing.assert_close(got, expected)
    for one, other in zip(got, expected):
        assert one.shape == other.shape and (one - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.parametrize('name', slow_but(*DEPLOYED, of=CASES))
def test_compiles_to_one_graph(name):
    taken, net, maps = built(name)
    compiled = torch.compile(taken, backend='aot_eager', fullgraph=True)
    recording = {'ICResNet': (True, False)}.get(name, (not CASES[name].deployed,))  # norms in place, and step by step
    for grad in recording:
        with torch.set_grad_enabled(grad):
            got, expected = compiled(*maps), net(*maps)
        same(got, expected, tight=not CASES[name].deployed)
        assert [one.stride() for one in got] == [other.stride() for other in expected]
    if CASES[name].deployed:
        with use_backend('reference'), torch.no_grad():  # the choice is made at every call
            same(compiled(*maps), net(*maps))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['FPT', 'FPT of one size'])
def test_compiled_gradients(name):
    taken, net, maps = built(name)
    compiled = torch.compile(taken, backend='aot_eager', fullgraph=True)
    grads = [
        torch.autograd.grad(sum(out.square().sum() for out in outputs), list(net.parameters()))
        for outputs in (compiled(*maps), net(*maps))
    ]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', [name for name, case in CASES.items() if case.operators])
def test_export(name):
    taken, net, maps = built(name)
    program = torch.export.export(taken, tuple(maps))
    nodes = [str(node.target) for node in program.graph.nodes]
    for operator, count in CASES[name].operators.items():
        assert sum(operator in node for node in nodes) == count, operator
    same(tuple(program.module()(*maps)), net(*maps), tight=not CASES[name].deployed)


@pytest.mark.parametrize('name', DEPLOYED)
def test_a_trace_needs_no_library(name):
    taken, net, maps = built(name)
    traced = torch.jit.trace(taken, tuple(maps))
    assert 'icconv_mm::' not in str(traced.inlined_graph)
    same(traced(*maps), net(*maps))


ONNX = ['PyConvResNet', 'PyConvHGResNet', 'FPT', 'FPT of one size', 'SEPC', *DEPLOYED]


@pytest.mark.parametrize(
    ('name', 'dynamo'),
    [
        *((name, False) for name in ONNX if not name.startswith('PyConv')),
        *(pytest.param(name, False, marks=pytest.mark.slow) for name in ONNX if name.startswith('PyConv')),
        *((name, True) for name in DEPLOYED),
    ],
)
def test_onnx_has_standard_operators(name, dynamo, tmp_path):
    onnx, runtime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    if dynamo and not NEWER_ONNX:
        pytest.skip('this torch exports with TorchScript only')
    if dynamo:
        pytest.importorskip('onnxscript')
    taken, net, maps = built(name)
    names = [f'x{level}' for level in range(len(maps))]
    settings = {'dynamo': dynamo} if NEWER_ONNX else {}
    settings |= {} if dynamo else {'opset_version': 17}
    others = CASES[name].others
    if others:
        settings['dynamic_axes'] = {'x0': [0, 2, 3]}
    path = str(tmp_path / 'net.onnx')
    torch.onnx.export(taken, tuple(maps), path, input_names=names, **settings)
    nodes = onnx.load(path).graph.node
    assert {node.domain for node in nodes} <= {'', 'ai.onnx'}
    assert not (CASES[name].deployed and any(node.op_type == 'BatchNormalization' for node in nodes))
    session = runtime.InferenceSession(path)
    slots = [slot.name for slot in session.get_inputs()]
    for batch in (maps, *([[torch.randn(shape) for shape in others]] if others else [])):
        got = session.run(None, {slot: x.numpy() for slot, x in zip(slots, batch, strict=True)})
        with torch.no_grad():
            same(tuple(map(torch.from_numpy, got)), net(*batch))
