"""Suite 'layers': the inception layers of IC-ResNet-50 and the pyramidal ones of PyConvResNet-50 at 800 x 1088.

Each against the dense 3x3 convolution of the same channels and stride, and against the plain composition of one
convolution per dilation or level; forward, and a training step (forward and both gradients).
"""

from collections.abc import Callable, Iterator
from math import ceil
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import Figure, Options, Timing, contest
from icconv_mm.layers.pyramid import LEVEL_SHARES, STAGE_GROUPS, STAGE_KERNELS
from icconv_mm.ops import explain, inception_conv2d, pyconv2d, use_backend
from icconv_mm.patterns import DilationPattern, load_pattern

PICTURE = (800, 1088)
PATTERN, SUBSTITUTE = 'detection/ic_resnet50_k9', 'geometric_d4'
BLOCKS, WIDTHS = (3, 4, 6, 3), (64, 128, 256, 512)  # of ResNet-50
INCEPTION_LIMIT = 1.25  # of any layer, forward, against the dense one
# stage -> limits of its pyramidal convolution, forward
PYCONV_LIMITS = {1: {'dense': 1.2, 'composition': 0.25}, 2: {'dense': 1.1}, 3: {'dense': 1.1}}


class Layer(NamedTuple):
    """One convolution to time.

    Attributes:
        name: Such as 'layer 3'.
        operator: Its name in ``torch.ops.icconv_mm``.
        shape: Of the input.
        stride: Of both axes.
        weights: Shapes of its weights, one per level.
        call: ``(x, weights) -> output``.
        arguments: ``(x, weights)`` -> those of ``torch.ops.icconv_mm``.
        limits: By baseline, forward, at full size.
        notes: For the figures.
    """

    name: str
    operator: str
    shape: tuple[int, ...]
    stride: int
    weights: list[tuple[int, ...]]
    call: Callable
    arguments: Callable
    limits: dict[str, float]
    notes: dict[str, object]


def run(options: Options) -> Iterator[Figure]:
    """Figures of all layers, and the sum over the inception layers.

    Raises:
        Disagreement: If ours, the composition, or memory formats differ in outputs or gradients.
    """
    figures = []
    for layer in [*inception_layers(options), *pyconv_layers(options)]:
        for kind in ('forward', 'step'):
            if options.wants(f'{layer.name} {kind}'):
                compared = _compare(layer, kind, options)
                yield from compared
                figures += compared
    yield from _sums(figures)


def load_or_substitute(name: str, substitute: str, *network: object) -> tuple[str, list[DilationPattern]]:
    """A published pattern and its name, or an analytic one where it is not at hand."""
    try:
        return name, load_pattern(name)
    except FileNotFoundError:
        return substitute, load_pattern(substitute, *network)


def inception_layers(options: Options) -> Iterator[Layer]:
    """The sixteen 3x3 convolutions of IC-ResNet-50, in forward order."""
    widths = [width for width, blocks in zip(WIDTHS, BLOCKS) for _ in range(blocks)]
    used, patterns = load_or_substitute(PATTERN, SUBSTITUTE, widths)
    for stage, block, number in _places():
        stride = 2 if stage and not block else 1
        side = 4 * 2**stage // stride  # pixels of the picture per pixel of the input
        size = tuple(ceil(length / side) for length in options.scaled(*PICTURE))
        width, pattern = WIDTHS[stage], patterns[number]
        yield Layer(
            f'layer {number}',
            'inception_conv2d',
            (1, width, *size),
            stride,
            [(width, width, 3, 3)],
            lambda x, w, pattern=pattern, stride=stride: inception_conv2d(x, w[0], None, pattern, stride),
            lambda x, w, pattern=pattern, stride=stride: (x, w[0], None, pattern.flat, stride, 1),
            {'dense': INCEPTION_LIMIT} if used == PATTERN else {},
            {'pattern': used, 'dilations': len({run[1:] for run in pattern})},
        )


def _places() -> list[tuple[int, int, int]]:
    places = [(stage, block) for stage, blocks in enumerate(BLOCKS) for block in range(blocks)]
    return [(stage, block, number) for number, (stage, block) in enumerate(places)]


def pyconv_layers(options: Options) -> Iterator[Layer]:
    """The pyramidal convolution of a later block of each stage of PyConvResNet-50 that has one."""
    for stage, limits in PYCONV_LIMITS.items():
        kernels, groups = STAGE_KERNELS[stage - 1], STAGE_GROUPS[stage - 1]
        width = WIDTHS[stage - 1]
        size = tuple(ceil(length / (2 * 2**stage)) for length in options.scaled(*PICTURE))
        weights = [
            (int(share * width), width // group, kernel, kernel)
            for share, kernel, group in zip(LEVEL_SHARES[len(kernels)], kernels, groups)
        ]
        yield Layer(
            f'PyConv stage {stage}',
            'pyconv2d',
            (1, width, *size),
            1,
            weights,
            lambda x, w, groups=groups: pyconv2d(x, w, None, groups),
            lambda x, w, groups=groups: (x, w, None, list(groups), 1, 1),
            limits,
            {'kernels': '/'.join(map(str, kernels)), 'groups': '/'.join(map(str, groups))},
        )


def _compare(layer: Layer, kind: str, options: Options) -> list[Figure]:
    contenders, chosen = _contenders(layer, kind, options)
    label = f'{layer.name} {kind}'
    contest.check_agreement(label, contenders, ('composition', 'ours'), contest.tolerance(options))
    results = contest.hold(contenders, options)
    limits = layer.limits if kind == 'forward' and options.scale == 1 and options.device == 'cpu' else {}
    notes = {'input': 'x'.join(map(str, layer.shape)), 'stride': layer.stride, **layer.notes, 'backend': chosen}
    return contest.figures('layers', label, results, limits, notes)


def _contenders(layer: Layer, kind: str, options: Options) -> tuple[dict, str]:
    """The calls, and the backend that serves ours."""
    generator = torch.Generator().manual_seed(0)
    width = layer.shape[1]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(options.device, options.tensor_dtype)

    x, dense = random(*layer.shape), random(width, width, 3, 3)
    weights = [random(*shape) for shape in layer.weights]
    grad = random(*F.conv2d(x, dense, None, layer.stride, 1).shape)
    contenders: dict[str, dict] = {'dense': {}, 'ours': {}, 'composition': {}}
    for name, fmt in contest.FORMATS.items():
        x, grad, dense, *weights = (t.contiguous(memory_format=fmt) for t in (x, grad, dense, *weights))

        def of_dense(x, weights, stride=layer.stride):
            return F.conv2d(x, weights[0], None, stride, 1)

        def composed(x, weights):
            with use_backend('reference'):
                return layer.call(x, weights)

        calls = {'dense': (of_dense, [dense]), 'ours': (layer.call, weights), 'composition': (composed, weights)}
        for contender, (call, tensors) in calls.items():
            contenders[contender][name] = _timed(call, x, list(tensors), grad, kind)
    return contenders, explain(layer.operator, *layer.arguments(x, weights)).chosen


def _timed(call: Callable, x: Tensor, weights: list[Tensor], grad: Tensor, kind: str) -> Callable[[], list[Tensor]]:
    if kind == 'forward':

        def forward() -> list[Tensor]:
            with torch.no_grad():
                return [call(x, weights)]

        return forward
    leaves = [tensor.detach().requires_grad_() for tensor in (x, *weights)]

    def step() -> list[Tensor]:
        out = call(leaves[0], leaves[1:])
        return [out, *torch.autograd.grad(out, leaves, grad)]

    return step


def _sums(figures: list[Figure]) -> Iterator[Figure]:
    """All sixteen inception layers together, where all have been timed."""
    for kind in ('forward', 'step'):
        for baseline in ('dense', 'composition'):
            ending = f' {kind}: ours / {baseline}'
            parts = [f for f in figures if f.name.startswith('layer ') and f.name.endswith(ending)]
            if len(parts) == sum(BLOCKS):
                subject, other = (_sum([getattr(f, side) for f in parts]) for side in ('subject', 'baseline'))
                notes = {'pattern': parts[0].notes['pattern'], 'sum of': len(parts)}
                yield Figure('layers', f'all layers{ending}', subject, other, notes=notes)


def _sum(timings: list[Timing]) -> Timing:
    return Timing(sum(t.minimum for t in timings), sum(t.median for t in timings), timings[0].repeats)
