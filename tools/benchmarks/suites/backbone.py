"""Suite 'backbone': whole backbones against the dense ResNet of the same depth, forward and training step."""

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks import Figure, Options
from benchmarks.networks import Case, compare, find_pattern
from icconv_mm.backbones import ICResNet, PyConvResNet

# name -> depth, published pattern and what stands in for it, on the CPU: (batch, picture, form, limit)
INCEPTION = {
    'IC-R50-k9': (
        50,
        ('detection/ic_resnet50_k9', 'geometric_d4'),
        (
            (1, (800, 1088), 'eager', 1.06),
            (1, (800, 1088), 'inference form', 1.06),
            (1, (224, 224), 'eager', 1.06),
            (1, (224, 224), 'inference form', 1.06),
            (2, (320, 320), 'step', 1.20),
        ),
    ),
    'IC-R50-k13 pose': (50, ('human_pose/ic_resnet50_k13', 'geometric_d6'), ((1, (640, 640), 'eager', 1.12),)),
    'IC-R101-k9': (101, ('detection/ic_resnet101_k9', 'geometric_d4'), ((1, (800, 1088), 'eager', 1.06),)),
}
PYCONV = ((1, (800, 1088), 'eager', 1.15),)
# the same on a GPU
ON_GPU = ((2, (800, 1344), 'eager', 1.2), (2, (800, 1344), 'step', 1.3))


def run(options: Options) -> Iterator[Figure]:
    """Figures of every backbone and size.

    Raises:
        Disagreement: If networks that should be equal are not.
    """
    for case in cases(options):
        if options.wants(case.label):
            yield from compare('backbone', case, options)


def cases(options: Options) -> Iterator[Case]:
    """What there is to time on this kind of device."""
    on_cpu = torch.device(options.device).type == 'cpu'
    for name, (depth, patterns, passes) in INCEPTION.items():
        used = find_pattern(*patterns)
        networks = partial(ICResNet, depth, used), partial(ICResNet, depth, 'dense')
        for *what, limit in passes if on_cpu else ON_GPU:
            yield Case(name, *networks, *what, limit if used == patterns[0] else None, {'pattern': used})
    networks = partial(PyConvResNet, 50), partial(ICResNet, 50, 'dense')
    for *what, limit in PYCONV if on_cpu else ON_GPU:
        yield Case('PyConvResNet-50', *networks, *what, limit if on_cpu else None, {})
