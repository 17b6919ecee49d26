"""Suite 'backbone': backbones against the ResNets of torchvision and mmdet that they replace."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from mmdet.models.backbones import ResNet as MMDetResNet
from torch import Tensor, nn
from torchvision.models import get_model
from torchvision.models._utils import IntermediateLayerGetter

from icconv_mm.backbones import ICResNet, PyConvResNet, ResNet
from icconv_workshop.benchmark.networks import Case, compare
from icconv_workshop.benchmark.patterns import find_pattern
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.timing import Options

LARGE, SMALL, TRAINED = (1, (800, 1088)), (1, (224, 224)), (2, (320, 320))
MEMORY = 1.03


class Pass(NamedTuple):
    """A pass to time, and its limits: see :class:`icconv_workshop.benchmark.networks.Case`."""

    batch: int
    image: tuple[int, int]
    form: str
    limit: float | None
    memory: float | None = None
    composition: bool = False
    dtype: str | None = None
    with_cp: bool | str = False


DENSE = (Pass(*LARGE, 'eager', 1.01, MEMORY), Pass(*SMALL, 'eager', 1.02), Pass(*TRAINED, 'step', 1.02, MEMORY))
# name -> depth, published pattern and what stands in for it, channels in a block, on the CPU
INCEPTION = {
    'IC-R50-k9': (
        50,
        ('detection/ic_resnet50_k9', 'geometric_d4'),
        None,
        (
            Pass(*LARGE, 'eager', 1.04, MEMORY, composition=True),
            Pass(*LARGE, 'deployed', 1.04),
            Pass(*LARGE, 'deployed / eager', 0.97),
            Pass(*SMALL, 'eager', 1.04),
            Pass(*SMALL, 'deployed', None),
            Pass(*TRAINED, 'step', 1.06, MEMORY, composition=True),
            Pass(*TRAINED, 'step', 1.06, 0.90, with_cp='norms'),
            Pass(*LARGE, 'as shipped', 0.70),
            Pass(*TRAINED, 'as shipped step', 1.00),
            Pass(*LARGE, 'eager', 1.10, dtype='bfloat16'),
        ),
    ),
    'IC-R50-k9 in blocks of 32': (
        50,
        ('detection/ic_resnet50_k9', 'geometric_d4'),
        32,
        (Pass(*LARGE, 'eager', 0.76), Pass(*SMALL, 'eager', 0.85), Pass(*TRAINED, 'step', 0.98)),
    ),
    'IC-R50-k13 pose': (
        50,
        ('human_pose/ic_resnet50_k13', 'geometric_d6'),
        None,
        (Pass(1, (640, 640), 'eager', 1.06),),
    ),
    'IC-R101-k9': (
        101,
        ('detection/ic_resnet101_k9', 'geometric_d4'),
        None,
        (Pass(*LARGE, 'eager', 1.05, composition=True),),
    ),
}
PYCONV = (Pass(*LARGE, 'eager', 1.05, MEMORY, composition=True), Pass(*TRAINED, 'step', 1.10, MEMORY))
# the same on a GPU
ON_GPU = (Pass(2, (800, 1344), 'eager', 1.2), Pass(2, (800, 1344), 'step', 1.3))


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
    if on_cpu:
        for case in DENSE:
            yield _case('ResNet-50', 50, partial(ResNet, 50), case, {})
    for name, (depth, patterns, block, passes) in INCEPTION.items():
        used = find_pattern(*patterns)
        for case in passes if on_cpu else ON_GPU:
            if case.dtype == 'bfloat16' and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
                continue
            limits = {} if used == patterns[0] else {'limit': None, 'memory': None}
            network = partial(ICResNet, depth, used, align=block)
            yield _case(name, depth, network, case._replace(**limits), {'pattern': used})
    for case in PYCONV if on_cpu else ON_GPU:
        yield _case('PyConvResNet-50', 50, partial(PyConvResNet, 50), case if on_cpu else case._replace(limit=None), {})


def _case(name: str, depth: int, ours: partial, case: Pass, notes: dict[str, object]) -> Case:
    if case.form.startswith('as shipped'):  # as the configs of mmdet have it, and batch norms of ours like theirs
        settings = {'frozen_stages': 1, 'norm_eval': True}
        upstream = {'mmdet': partial(MMDetResNet, depth, **settings)}
        ours = partial(ours, **settings)
    else:
        upstream = {
            'torchvision': partial(torchvision_resnet, depth),
            'mmdet': partial(MMDetResNet, depth, norm_eval=False),
        }
    if case.with_cp:
        name, ours = f'{name} with_cp={case.with_cp}', partial(ours, with_cp=case.with_cp)
    passed = {key: getattr(case, key) for key in ('memory', 'composition', 'dtype')}
    return Case(name, ours, upstream, case.batch, case.image, case.form, case.limit, notes, **passed)


class _Stages(IntermediateLayerGetter):
    """The outputs of the stages of a network."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(super().forward(x).values())


def torchvision_resnet(depth: int) -> nn.Module:
    """A ResNet that returns the maps of its four stages."""
    return _Stages(get_model(f'resnet{depth}'), {f'layer{stage}': stage for stage in (1, 2, 3, 4)})
