"""Suite 'detector': RetinaNet on IC-ResNet-50 against RetinaNet on ResNet-50, forward and training step."""

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from benchmarks import Figure, Options
from benchmarks.networks import Case, compare, find_pattern
from benchmarks.suites.layers import PATTERN, SUBSTITUTE
from benchmarks.suites.sepc import make_detector, make_samples

# batch, picture, form, by device
PASSES = {
    'cpu': ((1, (800, 1088), 'eager'), (1, (800, 1088), 'inference form'), (2, (320, 320), 'step')),
    'cuda': ((2, (800, 1344), 'eager'), (2, (800, 1344), 'inference form'), (2, (800, 1344), 'step')),
}


def run(options: Options) -> Iterator[Figure]:
    """Figures of the detector: forward without the choice of boxes, which is the same for both, and with losses.

    Raises:
        Disagreement: If networks that should be equal are not.
    """
    used = find_pattern(PATTERN, SUBSTITUTE)
    ours = partial(make_detector, pattern=used)
    with DefaultScope.overwrite_default_scope('mmdet'):
        for what in PASSES[torch.device(options.device).type]:
            case = Case('RetinaNet IC-R50-k9', ours, make_detector, *what, None, {'pattern': used}, _forward, _loss)
            if options.wants(case.label):
                yield from compare('detector', case, options)


def _forward(model: nn.Module, x: Tensor) -> Iterable[Tensor]:
    scores, boxes = model(x, mode='tensor')
    return [*scores, *boxes]


def _loss(model: nn.Module, x: Tensor) -> Tensor:
    samples = make_samples(len(x), tuple(x.shape[2:]), x.device)
    return model.parse_losses(model(x, samples, mode='loss'))[0]
