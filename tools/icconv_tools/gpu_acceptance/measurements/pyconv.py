"""The pyramidal convolutions of PyConvResNet-50 by stage, with every kernel by its name."""

from collections.abc import Iterator
from functools import partial

from icconv_mm.ops.definition.convolution_gradients import shapes_of
from icconv_tools.benchmark.suites.layers import Layer, pyconv_layers
from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.gpu_acceptance.kernels import REFERENCE
from icconv_tools.gpu_acceptance.measurements.layers import DENSE, IMAGES, KINDS, compare, dense_call, maps


def measurements(bench: Bench) -> Iterator[Measurement]:
    every = list(pyconv_layers(bench.options, IMAGES))
    for kind in KINDS:
        for layer in every[-1:] if bench.dry else every:
            yield Measurement(f'pyconv/{layer.name}, {kind}', partial(_measure, layer, kind), 30)


def _measure(layer: Layer, kind: str, bench: Bench) -> dict:
    """Our operator against the dense 3x3 convolution of the same channels."""
    conv, stride = layer.module, layer.stride
    x, grad, random = maps(layer, bench)
    weights = [random(*level.weight.shape) / level.weight[0].numel() ** 0.5 for level in conv.pyconv_levels]
    filters = random(conv.out_channels, x.shape[1], 3, 3) / (9 * x.shape[1]) ** 0.5
    args = {
        'forward': (x, weights, None),
        'gradient of the input': (grad, weights, list(x.shape[2:])),
        'gradient of the weight': (grad, x, shapes_of(weights)),
    }[kind]
    args = (*args, list(conv.groups), stride, conv.dilation)
    facts = {
        'groups': conv.groups[0],
        'group_in': conv.in_channels,  # of all groups
        'group_out': conv.out_channels,
        'levels': ','.join(str(level.kernel_size[0]) for level in conv.pyconv_levels),
        'levels of groups': layer.notes['groups'],
    }
    result = compare(f'pyconv2d{KINDS[kind]}', args, dense_call(kind, x, filters, grad, stride), grad, bench)
    names = [result['best'], DENSE, REFERENCE]
    best, dense, reference = (result['times'].get(name, {'GPU': float('nan')})['GPU'] for name in names)
    summary = f'{names[0]} {best:.1f} us, dense {dense:.1f}, reference {reference:.1f}'
    return {**facts, 'stride': stride, 'input': list(layer.shape), **result, 'summary': summary}
