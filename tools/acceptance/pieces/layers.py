"""The sixteen 3x3 layers of IC-ResNet-50, forward and both gradients, with every kernel by its name."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from benchmarks import contest
from benchmarks.suites.layers import INCEPTION_LAYERS, Layer, inception_layers
from torch import Tensor

from acceptance.bench import Bench, Measurement
from acceptance.kernels import CHOSEN, REFERENCE, candidates, sound

IMAGES = (2, 3, 800, 1344)
KINDS = {  # of a call -> operator
    'forward': 'inception_conv2d',
    'gradient of the input': 'inception_conv2d_grad_input',
    'gradient of the weight': 'inception_conv2d_grad_weight',
}
FORWARD_LIMIT = 670.0  # microseconds of all layers, on an H200
DENSE = 'dense'


def measurements(bench: Bench) -> Iterator[Measurement]:
    every = list(inception_layers(bench.options, IMAGES))
    for kind in KINDS:
        for layer in every[:2] if bench.dry else every:
            yield Measurement(name(layer.name, kind), partial(_measure, layer, kind), 15)
        yield Measurement(f'layers/all, {kind}', partial(_sum, kind), 1)


def name(layer: str, kind: str) -> str:
    """Name of a measurement."""
    return f'layers/{layer}, {kind}'


def _measure(layer: Layer, kind: str, bench: Bench) -> dict:
    args, dense = call(layer, kind, bench)
    calls, refused = sound(candidates(KINDS[kind], args), contest.tolerance(bench.options))
    times = bench.time({DENSE: dense, **calls}, eager=[REFERENCE])  # which copies indices to the GPU
    best = min(calls, key=lambda each: times[each]['GPU'])
    ratio = times[best]['GPU'] / max(times[DENSE]['GPU'], 1e-9)
    conv = layer.module
    facts = {
        'groups': conv.groups,
        'group_in': conv.in_channels // conv.groups,
        'group_out': conv.out_channels // conv.groups,
        'stride': layer.stride,
        'pixels': pixels(layer),
        'input': list(layer.shape),
        **layer.notes,
    }
    summary = f'{best} {times[best]["GPU"]:.1f} us, dense {times[DENSE]["GPU"]:.1f}: {ratio:.2f}'
    return {'operator': KINDS[kind], **facts, 'times': times, 'refused': refused, 'best': best, 'summary': summary}


def pixels(layer: Layer) -> int:
    """Pixels of the outputs of all images."""
    batch, _, height, width = layer.shape
    return batch * -(-height // layer.stride) * -(-width // layer.stride)


def call(layer: Layer, kind: str, bench: Bench) -> tuple[tuple, Callable[[], object]]:
    """The arguments of our operator, and the dense call; channels_last, as networks of a GPU are."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator).to(bench.options.device, bench.options.tensor_dtype)
        return made.contiguous(memory_format=torch.channels_last)

    conv, stride = layer.module, layer.stride
    x = random(*layer.shape)
    weight = random(*conv.weight.shape) / conv.weight[0].numel() ** 0.5
    grad = random(x.shape[0], len(weight), *((size - 1) // stride + 1 for size in x.shape[2:]))
    rest = list(conv.pattern.flat), stride, conv.groups

    def dense(mask: tuple[bool, bool, bool]) -> object:
        settings = [stride] * 2, [1, 1], [1, 1], False, [0, 0], conv.groups, mask
        return torch.ops.aten.convolution_backward(grad, x, weight, None, *settings)

    if kind == 'forward':
        convolution = partial(torch.nn.functional.conv2d, x, weight, None, stride, 1, 1, conv.groups)
        return (x, weight, None, *rest), convolution
    if kind == 'gradient of the input':
        return (grad, weight, list(x.shape[2:]), *rest), lambda: dense((True, False, False))
    return (grad, x, *rest), lambda: dense((False, True, False))


def _sum(kind: str, bench: Bench) -> dict:
    """Microseconds of all layers: dense, as chosen, and with the best kernel of each."""
    found = [each for title, each in bench.record.figures.items() if title.startswith('layers/layer ')]
    found = [each for each in found if each.get('operator') == KINDS[kind]]
    totals = {
        DENSE: sum(each['times'][DENSE]['GPU'] for each in found),
        CHOSEN: sum(each['times'].get(CHOSEN, {'GPU': float('nan')})['GPU'] for each in found),
        'best': sum(each['times'][each['best']]['GPU'] for each in found),
    }
    totals = {title: round(total, 1) for title, total in totals.items()}
    result = {'microseconds': totals, 'layers': len(found)}
    if kind == 'forward' and len(found) == INCEPTION_LAYERS and not bench.dry:
        result['limit'], result['kept'] = FORWARD_LIMIT, totals[CHOSEN] <= FORWARD_LIMIT
    shown = ', '.join(f'{title} {total:.0f}' for title, total in totals.items())
    return {**result, 'summary': f'{len(found)} layers, microseconds: {shown}'}
