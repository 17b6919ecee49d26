"""Suite 'layers': the inception layers of IC-ResNet-50 and the pyramidal ones of PyConvResNet-50 at 800 x 1088.

Each against the dense 3x3 convolution of the same channels and stride, and against the plain composition of one
convolution per dilation or level; forward, and a training step (forward and both gradients).
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from icconv_mm.backbones import ICResNet, PyConvResNet
from icconv_mm.ops import use_backend
from icconv_workshop.benchmark import harness
from icconv_workshop.benchmark.counters import count_backends
from icconv_workshop.benchmark.patterns import find_pattern
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.timing import Options, Timing

IMAGES = (1, 3, 800, 1088)
PATTERN, SUBSTITUTE = 'detection/ic_resnet50_k9', 'geometric_d4'
INCEPTION_LAYERS = 16  # of IC-ResNet-50
INCEPTION_LIMIT = 1.25  # of any layer, forward, against the dense one
# stage -> limits of its pyramidal convolution, forward
PYCONV_LIMITS = {1: {'dense': 1.2, 'composition': 0.25}, 2: {'dense': 1.1}, 3: {'dense': 1.1}}


class Layer(NamedTuple):
    """One convolution to time.

    Attributes:
        name: Such as 'layer 3'.
        module: The layer, on the meta device.
        shape: Shape of the input.
        stride: Stride of both axes.
        limits: Largest ratio for each baseline, forward, at full size.
        notes: Remarks that go with the figures.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    stride: int
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


def inception_layers(options: Options, images: Sequence[int] = IMAGES) -> Iterator[Layer]:
    """The sixteen 3x3 convolutions of IC-ResNet-50 for such images ``[N, 3, H, W]``, in forward order."""
    used = find_pattern(PATTERN, SUBSTITUTE)
    limits = {'dense': INCEPTION_LIMIT} if used == PATTERN else {}
    with torch.device('meta'):
        convs = _convolutions(ICResNet(50, used), options, images)
    for number, (conv, shape) in enumerate(convs.values()):
        notes = {'pattern': used, 'dilations': len(conv.pattern.histogram())}
        yield Layer(f'layer {number}', conv, shape, conv.stride[0], limits, notes)


def pyconv_layers(options: Options, images: Sequence[int] = IMAGES) -> Iterator[Layer]:
    """The pyramidal convolution of a later block of each stage of PyConvResNet-50 that has one."""
    with torch.device('meta'):
        convs = _convolutions(PyConvResNet(50), options, images)
    for stage, limits in PYCONV_LIMITS.items():
        conv, shape = convs[f'layer{stage}.1.conv2']
        kernels = '/'.join(str(level.kernel_size[0]) for level in conv.pyconv_levels)
        notes = {'kernels': kernels, 'groups': '/'.join(map(str, conv.groups))}
        yield Layer(f'PyConv stage {stage}', conv, shape, conv.stride, limits, notes)


def _convolutions(
    network: nn.Module, options: Options, images: Sequence[int]
) -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """The second convolution of every block, in forward order, and the shape of its input."""
    shapes = {}
    convs = {name: module for name, module in network.eval().named_modules() if name.endswith('.conv2')}
    for name, conv in convs.items():
        conv.register_forward_hook(lambda _, inputs, output, name=name: shapes.update({name: tuple(inputs[0].shape)}))
    batch, channels, *image = images
    network(torch.empty(batch, channels, *options.scaled(*image)))
    return {name: (convs[name], shape) for name, shape in shapes.items()}


def _compare(layer: Layer, kind: str, options: Options) -> list[Figure]:
    contenders = _contenders(layer, kind, options)
    label = f'{layer.name} {kind}'
    harness.check_agreement(label, contenders, ('composition', 'ours'), harness.tolerance(options))
    (backend,) = count_backends(contenders['ours']['channels_last'])
    results = harness.time_contenders(contenders, options)
    limits = layer.limits if kind == 'forward' and options.scale == 1 and options.device == 'cpu' else {}
    notes = {'input': 'x'.join(map(str, layer.shape)), 'stride': layer.stride, **layer.notes, 'backend': backend}
    return harness.figures('layers', label, results, limits, notes)


def _contenders(layer: Layer, kind: str, options: Options) -> harness.Contenders:
    generator = torch.Generator().manual_seed(0)

    def random(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator).to(options.device, options.tensor_dtype)

    def make(module: nn.Module, x: Tensor, grad: Tensor) -> Callable[[], list[Tensor]]:
        if kind == 'forward':
            return harness.forward(lambda: [module(x)])
        x = x.detach().requires_grad_()
        # not module(x), where FlopCounterMode does not take leaves
        return harness.step(lambda: [module.forward(x)], [x, *module.parameters()], [grad])

    width = layer.shape[1]
    dense = nn.Conv2d(width, width, 3, layer.stride, 1, bias=False, device='meta')
    x = torch.empty(layer.shape, device='meta')
    x, grad = random(x), random(dense(x))
    contenders = {}
    for name, module in (('dense', dense), ('ours', layer.module)):
        module = copy.deepcopy(module).to(options.tensor_dtype).to_empty(device=options.device)
        module.requires_grad_(kind == 'step')  # weights that may be trained cost the compiled kernel a comparison
        for parameter in module.parameters():
            parameter.data = random(parameter)
        contenders[name] = harness.in_formats(make, module, x, grad)
    contenders['composition'] = {fmt: use_backend('reference')(call) for fmt, call in contenders['ours'].items()}
    return contenders


def _sums(figures: list[Figure]) -> Iterator[Figure]:
    """All inception layers together, where all have been timed."""
    for kind in ('forward', 'step'):
        for baseline in ('dense', 'composition'):
            ending = f' {kind}: ours / {baseline}'
            parts = [f for f in figures if f.name.startswith('layer ') and f.name.endswith(ending)]
            if len(parts) == INCEPTION_LAYERS:
                subject, other = (_sum([getattr(f, side) for f in parts]) for side in ('subject', 'baseline'))
                notes = {'pattern': parts[0].notes['pattern'], 'sum of': len(parts)}
                yield Figure('layers', f'all layers{ending}', subject, other, notes=notes)


def _sum(timings: list[Timing]) -> Timing:
    return Timing(sum(t.minimum for t in timings), sum(t.median for t in timings), timings[0].repeats)
