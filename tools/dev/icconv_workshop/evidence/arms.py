"""What is trained: the arms, each by what differs from a base config."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

D_MAX = 4  # of the searched dilations
PATTERN_KEY, RATE_KEY = 'model.backbone.pattern', 'optim_wrapper.optimizer.lr'

# Learning rates by the first part of an arm's name: what was best on the baseline, as docs/evidence.md says.
RATES = {
    'search': 8e-3,
    'search-pose': 1.6e-2,
    'sepc': 8e-3,
    'backbone-classification': 8e-3,
    'backbone-detection': 8e-3,
    'backbone-segmentation': 1.6e-2,
    'head': 1.6e-2,
    'fpt': 4e-3,  # of which joint-masks has the baseline: one rate
    'joint': 4e-3,
}


@dataclass(frozen=True)
class Arm:
    """One network and how it is trained.

    Attributes:
        name: ``<family>/<what>``; also its folder.
        base: A file of ``evidence/configs``, without ``.py``.
        changes: What differs from the base: dotted keys of the config and their values.
        data: A key of :data:`DATA`.
        searches: Whether it is a supernet, whose dilations are searched after training.
        pattern_of: The supernet whose pattern, of the same seed, it takes.
        length: Iterations, in terms of those of its base.
        tests: Further tests of the trained network, by name: what they change.
    """

    name: str
    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: str = 'far'
    searches: bool = False
    pattern_of: str | None = None
    length: float = 1.0
    tests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Its learning rate, unless ``changes`` have one."""
        return RATES[self.name.split('/')[0]]


# planted distances in pixels; a stage of stride s reaches s * d with one convolution of dilation d
DATA = {'far': (32,), 'mixed': (16, 32)}
SCALES = 'mixed'  # of the comparisons that are about sizes

_SUPERNET = {PATTERN_KEY: None, 'model.backbone.supernet_d_max': D_MAX}
# FLOPs of a supernet and a searched network, over those of a dense one: of RetinaNet, of pose
_COSTS = (5.4, 6.5)


def _search(
    family: str, base: str, data: str, cost: float, tests: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Arm]:
    """Dense, analytic and searched pattern, the supernet, and a dense network that trains as long as both."""
    patterned = {'dense': 'dense', 'analytic': f'geometric_d{D_MAX}'}
    return [
        *(
            Arm(f'{family}/{name}', base, {PATTERN_KEY: value}, data, tests=tests or {})
            for name, value in patterned.items()
        ),
        Arm(f'{family}/supernet', base, _SUPERNET, data, searches=True),
        Arm(f'{family}/searched', base, {}, data, pattern_of=f'{family}/supernet'),
        Arm(f'{family}/dense-long', base, {}, data, length=cost),
    ]


def _pyramid(**options) -> dict[str, Any]:
    """SEPC behind the FPN, and the head without convolutions of its own that reads its pairs."""
    fpn = dict(type='FPN', in_channels=[16, 32, 64], out_channels=32, num_outs=4, add_extra_convs='on_output')
    sepc = dict(type='icconv_mm.SEPC', in_channels=32, out_channels=32, num_outs=4, lcconv_padding=1, **options)
    sepc['init_cfg'] = dict(type='Normal', layer='ScaleEqualizedConv2d', std=0.028)  # as of the head
    head = dict(type='icconv_mm.SplitFeatureHead', head_type='RetinaHead', stacked_convs=0)
    changes = {f'model.bbox_head.{key}': value for key, value in head.items()}
    return {'model.neck': [dict(fpn, norm_cfg=dict(type='BN')), sepc], **changes}


_LITE = dict(lcconv_deform=True)
_FULL = dict(lcconv_deform=True, pconv_deform=True)
_SEPC = [
    Arm('sepc/retinanet', 'sepc', data=SCALES),
    Arm('sepc/pconv', 'sepc', _pyramid(), SCALES),
    Arm('sepc/pconv-ibn', 'sepc', _pyramid(ibn=True), SCALES),
    Arm('sepc/lite-without-ibn', 'sepc', _pyramid(**_LITE), SCALES),
    Arm('sepc/lite', 'sepc', _pyramid(**_LITE, ibn=True), SCALES),
    Arm('sepc/sepc-without-ibn', 'sepc', _pyramid(**_FULL), SCALES),
    Arm('sepc/sepc', 'sepc', _pyramid(**_FULL, ibn=True), SCALES),
]

_BACKBONES = {'resnet': 'ResNet', 'pyconv': 'PyConvResNet', 'pyconv-hg': 'PyConvHGResNet'}


def _backbones(task: str, base: str, **changes) -> list[Arm]:
    """The three backbones of 50 layers, a quarter as wide."""
    arms = []
    for name, kind in _BACKBONES.items():
        backbone = dict(type=f'icconv_mm.{kind}', depth=50, base_channels=16, _delete_=True)
        arms.append(Arm(f'backbone-{task}/{name}', base, {'model.backbone': backbone, **changes}, SCALES))
    return arms


_WIDE = {'model.neck.in_channels': [64, 128, 256, 512]}
_GN = dict(type='GN', num_groups=8)
_FPT = dict(type='icconv_mm.FPT', in_channels=[16, 32, 64, 128], out_channels=32, drop_prob=0.0, norm_cfg=_GN)
INTERACTIONS = ('self', 'grounding', 'rendering')


def _fpt(name: str, kinds: Sequence[str] = INTERACTIONS) -> Arm:
    neck = dict(_FPT, interactions=list(kinds), _delete_=True)
    return Arm(f'fpt/{name}', 'mask_rcnn', {'model.neck': neck}, SCALES)


# Mask R-CNN without masks
_BOXES_ALONE = {'model.type': 'FasterRCNN', 'model.roi_head.mask_head': None, 'model.roi_head.mask_roi_extractor': None}
_MULTI_SCALE = {'multi-scale': {'test_dataloader.dataset.pipeline.1.scales': [2, 1, 0.5]}}
_HEAD = {'model.decode_head.type': 'icconv_mm.PyConvHead', 'model.decode_head.pyconv_channels': 64}

ARMS = {
    arm.name: arm
    for arm in (
        *_search('search', 'retinanet', 'far', _COSTS[0]),
        *_search('search-pose', 'pose', SCALES, _COSTS[1], _MULTI_SCALE),
        *_SEPC,
        *_backbones('classification', 'classification', **{'model.backbone.out_indices': (3,)}),
        *_backbones('detection', 'retinanet', **_WIDE),
        *_backbones('segmentation', 'semantic_fpn', **_WIDE),
        Arm('head/psp', 'pspnet', data=SCALES),
        Arm('head/pyconv', 'pspnet', _HEAD, SCALES),
        Arm('fpt/fpn', 'mask_rcnn', data=SCALES),
        _fpt('fpt'),
        *(_fpt(f'without-{kind}', [each for each in INTERACTIONS if each != kind]) for kind in INTERACTIONS),
        Arm('joint/joint', 'joint', data=SCALES),
        Arm('joint/boxes', 'mask_rcnn', _BOXES_ALONE, SCALES),
        Arm('joint/semantic', 'semantic_fpn', data=SCALES),
        Arm('joint/pose', 'pose_pyramid', data=SCALES),
    )
}
