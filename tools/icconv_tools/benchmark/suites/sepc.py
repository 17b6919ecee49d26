"""Suite 'sepc': RetinaNet with SEPC's necks against RetinaNet with its own head; integrated batch norm, and the sums of
a pyramid convolution, alone."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple
from unittest import mock

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from icconv_mm.layers import IntegratedBatchNorm, integrated_batch_norm, scale_equalized_conv
from icconv_mm.ops import use_backend
from icconv_tools.benchmark import counters, harness
from icconv_tools.benchmark.norms import check_integrated, norm_steps, sum_calls
from icconv_tools.benchmark.report import Figure
from icconv_tools.benchmark.suites.models import detector, make_samples
from icconv_tools.benchmark.timing import Options, Timing, interleave, synchronize

IMAGES = {'cpu': (320, 544), 'cuda': (800, 1344)}  # height, width
LEVELS = {
    'cpu': ((40, 68), (20, 34), (10, 17), (5, 9), (3, 5)),
    'cuda': ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11)),
}
VARIANTS: dict[str, dict] = {
    'PConv': {},
    'PConv + iBN': {'ibn': True},
    'SEPC-lite': {'ibn': True, 'lcconv_deform': True},
    'SEPC': {'ibn': True, 'lcconv_deform': True, 'pconv_deform': True},
}
# Largest ratios that are wanted of inference, by device.
LIMITS = {'cpu': {'PConv': 1.10, 'PConv + iBN': 1.10}, 'cuda': {'SEPC-lite': 1.10, 'SEPC': 1.60}}
IBN_TIME, IBN_MEMORY = 1.15, 1.05
TOLERANCE = 1e-4
NORM, NORM_RELU = 'iBN / batch norm per level', 'iBN and ReLU of all levels / its reference'
Shapes = Sequence[tuple[int, ...]]  # of the levels, the finest first
SUMS, SUMS_STEP = 'sums of levels / torch', 'sums of levels with gradients / torch'


class Sizes(NamedTuple):
    """Sizes of what is timed."""

    image: tuple[int, int] | None = None  # height and width; None for those of the device
    depth: int = 50  # of the backbone
    channels: int = 256  # of the pyramid
    batches: tuple[int, ...] = (1, 4)  # images of a call, one figure each


FULL = Sizes()  # for which the limits are


def run(options: Options, sizes: Sizes = FULL) -> Iterator[Figure]:
    """Detectors in training (loss and gradients) and test (predictions), then iBN against a batch norm per level and
    against its reference, and the sums of a pyramid convolution's levels against torch's steps.

    Raises:
        Disagreement: If a neck whose offsets are zero differs from the one that does not deform, integrated batch norm
            from batch norm over the concatenated pyramid, or a sum from torch's.
    """
    device = torch.device(options.device).type
    if any(options.wants(_name(kind, name)) for kind in ('test', 'train') for name in VARIANTS):
        yield from _detectors(device, sizes, options)
    parts = {NORM: _norms, NORM_RELU: _norms_with_relu, SUMS: _sums, SUMS_STEP: _sums}
    for name, part in parts.items():
        for batch in sizes.batches if options.wants(name) else ():
            yield part(name, [(batch, sizes.channels, *size) for size in LEVELS[device]], options)


def _name(kind: str, variant: str) -> str:
    return f'{kind}: {variant} / baseline'


def _detectors(device: str, sizes: Sizes, options: Options) -> Iterator[Figure]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        detectors = {name: make_detector(sizes, neck) for name, neck in {'baseline': None, **VARIANTS}.items()}
        for model in detectors.values():
            model.to(options.device)
        _check_necks(detectors, sizes.channels)
        for batch in sizes.batches:
            yield from _compare(detectors, batch, sizes.image or IMAGES[device], LIMITS[device], options)


def make_detector(sizes: Sizes, neck: dict | None) -> nn.Module:
    """mmdet's RetinaNet on its ResNet-50 and, where ``neck`` says so, SEPC behind its FPN."""

    def change(model: dict) -> None:
        model['backbone']['depth'] = sizes.depth
        factor, width = 4 if sizes.depth >= 50 else 1, sizes.channels
        model['neck'] |= {'in_channels': [64 * factor * 2**i for i in range(4)], 'out_channels': width}
        model['bbox_head'] |= {'in_channels': width, 'feat_channels': width}
        for loss in ('loss_cls', 'loss_bbox'):
            del model['bbox_head'][loss]  # cross entropy for focal loss, which on a GPU needs a kernel of mmcv
        if neck is not None:
            model['bbox_head'] |= {'type': 'icconv_mm.SplitFeatureHead', 'head_type': 'RetinaHead', 'stacked_convs': 0}
            sepc = {'type': 'icconv_mm.SEPC', 'in_channels': width, 'out_channels': width, 'num_outs': 5, **neck}
            model['neck'] = [model['neck'], sepc]

    return detector('RetinaNet', change=change)


@torch.no_grad()
@torch.backends.cudnn.flags(enabled=True, allow_tf32=False)  # its rounding would hide a difference
def _check_necks(detectors: dict[str, nn.Module], channels: int) -> None:
    """With the same weights and zero offsets all variants with iBN are one function."""
    plain = detectors['PConv + iBN'].neck[1].eval()
    device = next(plain.parameters()).device
    sizes = ((33, 40), (17, 20), (9, 10), (5, 5), (3, 3))
    levels = [torch.randn(1, channels, *size, device=device) for size in sizes]
    expected = plain(levels)
    for name in ('SEPC-lite', 'SEPC'):
        neck = detectors[name].neck[1].eval()
        neck.load_state_dict(plain.state_dict(), strict=False)
        for level, (got, want) in enumerate(zip(neck(levels), expected)):
            label = f'{name} with zero offsets against PConv + iBN, level {level}'
            harness.check_equal(label, got, want, TOLERANCE)


def _compare(detectors, batch, size, limits, options) -> Iterator[Figure]:
    """Every variant against the baseline, in test and in training."""
    x = torch.randn(batch, 3, *size, device=options.device)
    samples = make_samples(batch, size, options.device)

    @torch.no_grad()
    def test(model: nn.Module) -> None:
        model.eval()(x, samples, mode='predict')

    def train(model: nn.Module) -> None:
        model.train().zero_grad()
        loss, _ = model.parse_losses(model(x, samples, mode='loss'))
        loss.backward()

    for kind, call in (('test', test), ('train', train)):
        times = interleave({name: partial(call, model) for name, model in detectors.items()}, options)
        for name, variant in VARIANTS.items():
            notes = {'batch': batch, 'image': f'{size[0]}x{size[1]}'}
            if kind == 'test' and variant.get('lcconv_deform'):
                with _deformable_seconds(options.device) as seconds:
                    start = time.perf_counter()
                    test(detectors[name])
                    total = time.perf_counter() - start
                notes['deformable convolution'] = f'{100 * sum(seconds) / total:.0f} %'
            limit = limits.get(name) if kind == 'test' else None
            yield Figure('sepc', _name(kind, name), times[name], times['baseline'], limit, notes)


@contextmanager
def _deformable_seconds(device: str) -> Iterator[list[float]]:
    """Seconds of every deformable convolution in the context."""
    original, seconds = scale_equalized_conv.padded_deform_conv2d, []

    def timed(*args) -> Tensor:
        synchronize(device)
        start = time.perf_counter()
        y = original(*args)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
        return y

    with mock.patch.object(scale_equalized_conv, 'padded_deform_conv2d', timed):
        yield seconds


def _norms(name: str, shapes: Shapes, options: Options) -> Figure:
    """Forward and backward of integrated batch norm against one batch norm per level, in training mode."""
    levels = _maps(shapes, options)
    integrated, *steps = norm_steps(levels)
    check_integrated(integrated, levels, TOLERANCE / 10)
    contenders = dict(zip(('integrated', 'per level'), steps))
    times = interleave(contenders, options)
    integral, separate = (counters.peak_memory(call, options.device) for call in contenders.values())
    ratio = integral / separate
    verdict = f'{ratio:.3f} (limit {IBN_MEMORY:.2f} {"kept" if ratio <= IBN_MEMORY else "MISSED"})'
    return _figure(name, shapes, times['integrated'], times['per level'], IBN_TIME, **{'peak memory ratio': verdict})


def _maps(shapes: Shapes, options: Options) -> list[Tensor]:
    return [torch.randn(shape, device=options.device, requires_grad=True) for shape in shapes]


def _figure(name: str, shapes: Shapes, ours: Timing, baseline: Timing, limit: float | None = None, **notes) -> Figure:
    batch, _, height, width = shapes[0]
    return Figure('sepc', name, ours, baseline, limit, {'batch': batch, 'finest level': f'{height}x{width}', **notes})


def _norms_with_relu(name: str, shapes: Shapes, options: Options) -> Figure:
    """Forward and backward of integrated batch norm and ReLU: on the backend that is chosen, and the reference's."""
    levels, norm = _maps(shapes, options), IntegratedBatchNorm(shapes[0][1]).to(options.device)
    grads = [torch.randn_like(level) for level in levels]
    step = harness.step(lambda: integrated_batch_norm(levels, norm, relu=True), [*levels, *norm.parameters()], grads)
    times = interleave({'ours': step, 'reference': use_backend('reference')(step)}, options)
    return _figure(name, shapes, times['ours'], times['reference'])


def _sums(name: str, shapes: Shapes, options: Options) -> Figure:
    """What a pyramid convolution adds up at each level, with random maps in the place of its convolutions."""
    call, step = sum_calls(*(_maps(shapes, options) for _ in range(3)))
    reference = use_backend('reference')
    harness.check_equal(name, call(), reference(call)(), TOLERANCE / 10)
    timed = step if name == SUMS_STEP else torch.no_grad()(call)
    times = interleave({'ours': timed, 'torch': reference(timed)}, options)
    return _figure(name, shapes, times['ours'], times['torch'])
