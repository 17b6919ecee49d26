"""The sixteen 3x3 layers of IC-ResNet-50, forward and both gradients, with every kernel by its name."""

from collections.abc import Callable, Collection, Iterator
from functools import partial

import torch
from torch import Tensor

from icconv_tools.benchmark import harness
from icconv_tools.benchmark.suites.layers import INCEPTION_LAYERS, Layer, inception_layers
from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.gpu_acceptance.kernels import CHOSEN, REFERENCE, agreeing, kernel_calls

IMAGES = (2, 3, 800, 1344)
# of a call -> ending of the operator's name
KINDS = {'forward': '', 'gradient of the input': '_grad_input', 'gradient of the weight': '_grad_weight'}
OPERATOR = 'inception_conv2d'
FORWARD_LIMIT = 670.0  # microseconds of all layers, on an H200
DENSE = 'dense'


def measurements(bench: Bench) -> Iterator[Measurement]:
    every = list(inception_layers(bench.options, IMAGES))
    for kind in KINDS:
        for layer in every[:2] if bench.dry else every:
            yield Measurement(f'layers/{layer.name}, {kind}', partial(_measure, layer, kind), 15)
        yield Measurement(f'layers/all, {kind}', partial(_sum, kind), 1)


def _measure(layer: Layer, kind: str, bench: Bench) -> dict:
    conv, stride = layer.module, layer.stride
    x, grad, random = maps(layer, bench)
    weight = random(*conv.weight.shape) / conv.weight[0].numel() ** 0.5
    args = {
        'forward': (x, weight, None),
        'gradient of the input': (grad, weight, list(x.shape[2:])),
        'gradient of the weight': (grad, x),
    }[kind]
    dense = dense_call(kind, x, weight, grad, stride, conv.groups)
    facts = {
        'groups': conv.groups,
        'group_in': conv.in_channels // conv.groups,
        'group_out': conv.out_channels // conv.groups,
        **layer.notes,
    }
    args = (*args, list(conv.pattern.flat), stride, conv.groups)
    eager = [REFERENCE]  # which copies indices to the GPU
    result = compare(OPERATOR + KINDS[kind], args, dense, grad, bench, eager)
    best, others = (result['times'][each]['GPU'] for each in (result['best'], DENSE))
    summary = f'{result["best"]} {best:.1f} us, dense {others:.1f}: {best / max(others, 1e-9):.2f}'
    return {**facts, 'stride': stride, 'input': list(layer.shape), **result, 'summary': summary}


def maps(layer: Layer, bench: Bench) -> tuple[Tensor, Tensor, Callable[..., Tensor]]:
    """An input and a gradient of the output, and what makes more such tensors, the same in every run.

    They are channels_last, as networks of a GPU are.
    """
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        made = torch.randn(shape, generator=generator).to(bench.options.device, bench.options.tensor_dtype)
        return made.contiguous(memory_format=torch.channels_last)

    batch, _, *sizes = layer.shape
    outputs = random(batch, layer.module.out_channels, *((size - 1) // layer.stride + 1 for size in sizes))
    return random(*layer.shape), outputs, random


def compare(
    operator: str, args: tuple, dense: Callable[[], object], grad: Tensor, bench: Bench, eager: Collection[str] = ()
) -> dict:
    """The times of a call by every kernel whose result is that of the reference, and of the dense call."""
    calls, refused = agreeing(kernel_calls(operator, args), harness.tolerance(bench.options))
    times = bench.time({DENSE: dense, **calls}, eager=eager)
    best = min(calls, key=lambda each: times[each]['GPU'])
    pixels = grad[:, 0].numel()  # of the outputs of all images
    return {'operator': operator, 'pixels': pixels, 'times': times, 'refused': refused, 'best': best}


def dense_call(
    kind: str, x: Tensor, filters: Tensor, grad: Tensor, stride: int, groups: int = 1
) -> Callable[[], object]:
    """The same pass of torch's 3x3 convolution."""
    if kind == 'forward':
        return partial(torch.nn.functional.conv2d, x, filters, None, stride, 1, 1, groups)
    mask = kind == 'gradient of the input', kind == 'gradient of the weight', False
    settings = [stride] * 2, [1, 1], [1, 1], False, [0, 0], groups, mask
    return partial(torch.ops.aten.convolution_backward, grad, x, filters, None, *settings)


def _sum(kind: str, bench: Bench) -> dict:
    """Microseconds of all layers: dense, as chosen, and with the best kernel of each."""
    found = [each for title, each in bench.results.figures.items() if title.startswith('layers/layer ')]
    found = [each for each in found if each.get('operator') == OPERATOR + KINDS[kind]]
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
