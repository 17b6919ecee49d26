"""The pyramidal convolutions of PyConvResNet-50 by stage, with every kernel by its name."""

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks import contest
from benchmarks.suites.layers import Layer, pyconv_layers

from acceptance.bench import Bench, Measurement
from acceptance.kernels import REFERENCE, candidates, sound
from acceptance.pieces.layers import DENSE, IMAGES, KINDS, dense_call, pixels, random_tensors
from icconv_mm.ops.trilinear import shapes_of


def measurements(bench: Bench) -> Iterator[Measurement]:
    every = list(pyconv_layers(bench.options, IMAGES))
    for kind in KINDS:
        for layer in every[-1:] if bench.dry else every:
            yield Measurement(f'pyconv/{layer.name}, {kind}', partial(_measure, layer, kind), 30)


def _measure(layer: Layer, kind: str, bench: Bench) -> dict:
    operator = f'pyconv2d{KINDS[kind]}'
    args, dense = _call(layer, kind, bench)
    calls, refused = sound(candidates(operator, args), contest.tolerance(bench.options))
    times = bench.time({DENSE: dense, **calls})
    best = min(calls, key=lambda each: times[each]['GPU'])
    facts = {
        'groups': layer.module.groups[0],
        'group_in': layer.module.in_channels,  # of all groups
        'group_out': layer.module.out_channels,
        'stride': layer.stride,
        'pixels': pixels(layer),
        'levels': ','.join(str(level.kernel_size[0]) for level in layer.module.pyconv_levels),
        'input': list(layer.shape),
        'levels of groups': layer.notes['groups'],
    }
    reference = times[REFERENCE]['GPU'] if REFERENCE in times else float('nan')
    summary = f'{best} {times[best]["GPU"]:.1f} us, dense {times[DENSE]["GPU"]:.1f}, reference {reference:.1f}'
    return {'operator': operator, **facts, 'times': times, 'refused': refused, 'best': best, 'summary': summary}


def _call(layer: Layer, kind: str, bench: Bench) -> tuple[tuple, Callable[[], object]]:
    """The arguments of our operator, and the dense 3x3 call of the same channels."""
    random = random_tensors(bench)
    conv, stride = layer.module, layer.stride
    x = random(*layer.shape)
    weights = [random(*level.weight.shape) / level.weight[0].numel() ** 0.5 for level in conv.pyconv_levels]
    filters = random(conv.out_channels, x.shape[1], 3, 3) / (9 * x.shape[1]) ** 0.5
    grad = random(x.shape[0], conv.out_channels, *((size - 1) // stride + 1 for size in x.shape[2:]))
    args = {
        'forward': (x, weights, None),
        'gradient of the input': (grad, weights, list(x.shape[2:])),
        'gradient of the weight': (grad, x, shapes_of(weights)),
    }[kind]
    return (*args, list(conv.groups), stride, conv.dilation), dense_call(kind, x, filters, grad, stride)
