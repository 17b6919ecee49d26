"""Whole backbones against the dense ResNet-50: eager, as a CUDA graph, deployed, and a training step."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_mm.deployment import deploy
from icconv_tools.benchmark import harness
from icconv_tools.benchmark.counters import count_backends
from icconv_tools.benchmark.patterns import find_pattern
from icconv_tools.benchmark.suites.layers import PATTERN, SUBSTITUTE
from icconv_tools.gpu_acceptance.bench import Bench, Measurement, against

IMAGES = (2, 3, 800, 1344)
DENSE = 'dense'

# (network, form) -> baseline -> kind of time -> largest ratio on an H200, for the published pattern
CASES: dict[tuple[str, str], Mapping[str, Mapping[str, float]]] = {
    ('IC-ResNet-50', 'forward'): {DENSE: {'wall': 1.15, 'GPU': 1.10}},
    ('IC-ResNet-50', 'step'): {DENSE: {'wall': 1.15}},
    ('IC-ResNet-50', 'deployed'): {'dense, eager': {'wall': 0.6}, 'dense, equally fused': {'wall': 1.15}},
    ('PyConvResNet-50', 'forward'): {DENSE: {'wall': 1.3}},
    ('PyConvResNet-50', 'step'): {},
    ('PyConvResNet-50', 'deployed'): {},
}


def measurements(bench: Bench) -> Iterator[Measurement]:
    for network, form in CASES:
        yield Measurement(f'networks/{network} {form}', partial(_measure, network, form), 60)


def _measure(network: str, form: str, bench: Bench) -> dict:
    depth = 18 if bench.dry else 50
    pattern = find_pattern(PATTERN, SUBSTITUTE)
    makers = {
        DENSE: partial(_dense, depth),
        'IC-ResNet-50': partial(ICResNet, depth, SUBSTITUTE if bench.dry else pattern),
        'PyConvResNet-50': partial(PyConvResNet, depth),
    }
    batch, channels, *image = IMAGES
    x = torch.randn(batch, channels, *bench.options.scaled(*image), generator=torch.Generator().manual_seed(0))
    x = _placed(x, bench)
    dense, ours = (_placed(makers[name](), bench) for name in (DENSE, network))
    calls = _calls(form, dense, ours, x, bench)
    served = count_backends(calls['ours'])
    times = bench.time(calls, calls=1)
    limits = {} if bench.dry or pattern != PATTERN else CASES[network, form]
    comparisons = [against(times, 'ours', name, limits.get(name, {})) for name in calls if name != 'ours']
    summary = ', '.join(f'/ {each["baseline"]} {each["ratios"]}' for each in comparisons)
    notes = {
        'dense is': 'icconv_mm' if isinstance(dense, ResNet) else 'torchvision',
        'pattern': pattern,
        'backends': dict(served),
    }
    return {'times': times, 'comparisons': comparisons, 'input': list(x.shape), **notes, 'summary': summary}


def _calls(form: str, dense: nn.Module, ours: nn.Module, x: Tensor, bench: Bench) -> dict[str, Callable]:
    """The contenders by name; a deployed network's results are checked against those before."""
    if form == 'step':
        return {name: _step(network, x) for name, network in ((DENSE, dense), ('ours', ours))}
    calls = {name: harness.forward(partial(network, x)) for name, network in ((DENSE, dense), ('ours', ours))}
    if form == 'forward':
        return calls
    forms = {name: harness.forward(partial(deploy(network), x)) for name, network in ((DENSE, dense), ('ours', ours))}
    tolerance = 3 * harness.tolerance(bench.options)  # some fifty layers, each of which rounds
    for name, call in forms.items():
        harness.check_equal(f'deployed {name}', call(), calls[name](), tolerance, harness.of_norm)
    return {'dense, eager': calls[DENSE], 'dense, equally fused': forms[DENSE], 'ours': forms['ours']}


def _step(network: nn.Module, x: Tensor) -> Callable[[], list[Tensor]]:
    """Forward and backward of a network in training mode, from fixed gradients of its outputs."""
    network.train()
    grads = [harness.loss_weights(out).to(out.dtype) for out in network(x)]
    return harness.step(partial(network, x), [p for p in network.parameters() if p.requires_grad], grads)


def _placed(what, bench: Bench):
    made = what.to(bench.options.device, bench.options.tensor_dtype, memory_format=torch.channels_last)
    return made.eval() if isinstance(made, nn.Module) else made


def _dense(depth: int) -> nn.Module:
    """torchvision's ResNet; ours where it is not installed."""
    try:
        from icconv_tools.benchmark.torchvision_resnet import torchvision_resnet
    except ImportError:
        return ResNet(depth)
    return torchvision_resnet(depth)
