"""What is trained: the arms, each by what differs from a base config."""

import re
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
    'camvid': 4e-3,
    'camvid-backbone': 4e-3,
    'camvid-head': 4e-3,
    'camvid-fpt': 4e-3,
    'camvid192': 4e-3,
    'bccd': 2e-3,
    'bccd192': 2e-3,
    'bccd-neck': 2e-3,
    'nuclei-backbone': 2e-3,
    'nuclei-fpt': 2e-3,
    'nuclei-joint': 2e-3,
}


@dataclass(frozen=True)
class Arm:
    """One network and how it is trained.

    Attributes:
        name: ``<family>/<what>``; also its folder.
        base: A file of ``evidence/configs``, without ``.py``; a task where the data are real.
        changes: What differs from the base: dotted keys of the config and their values.
        data: A key of :data:`DATA`, or of :data:`icconv_workshop.evidence.real.REAL`.
        model: A file of ``evidence/configs`` whose network takes the place of the base's.
        only: The task that a network for all tasks has alone; all by default.
        searches: Whether dilations are found in it: after the training in a supernet, during it by RF-Next.
        pattern_of: The supernet whose pattern, of the same seed, it takes.
        align: Channels in a block of that pattern; None for runs of any length.
        length: Iterations, in terms of those of its base.
        tests: Further tests of the trained network, by name: what they change.
    """

    name: str
    base: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    data: str = 'far'
    model: str | None = None
    only: str | None = None
    searches: bool = False
    pattern_of: str | None = None
    align: int | None = None
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
        backbone = dict(
            type=f'icconv_mm.{kind}', depth=50, base_channels=16, stem_channels=16, norm_eval=False, _delete_=True
        )
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

_LOGGED = {'model.log_gradients': True}
_UPGRAD = {**_LOGGED, 'model.aggregator': 'UPGrad'}
# Lengths at which one network for all tasks costs half of what the networks for each cost together: a step of it takes
# 0.56 of the steps of the four for drawn images, and 0.57 of those of the three for nuclei, on one CPU core.
_HALF_OF_FOUR, _HALF_OF_THREE = 0.82, 5 / 6  # the latter in whole epochs

# --- real sets ---

_NARROW = dict(
    type='icconv_mm.ICResNet',
    depth=18,
    pattern='dense',
    base_channels=32,
    stem_channels=32,
    norm_eval=False,
    _delete_=True,
)
# each dilation that the search has to choose from, in as many channels: what a search that knew nothing would find
_PAIRS = [(height, width) for height in range(1, D_MAX + 1) for width in range(1, D_MAX + 1)]
_EVEN = [[[channels // len(_PAIRS), *pair] for pair in _PAIRS] for channels in (32, 64, 128, 256) for _ in range(4)]
# the settings of mmdetection's configs/rfnext, on the backbone alone, as the search of IC-Conv is
_RF_NEXT = dict(exp_rate=0.5, init_alphas=0.01, mmin=1, mmax=24, num_branches=2, skip_layer=['module.conv1', 'layer1'])


def _real(name: str, base: str, changes: Mapping[str, Any] | None = None, **options) -> Arm:
    """An arm on a real set, whose name begins that of the arm."""
    backbone = {} if 'model' in options else {'model.backbone': _NARROW}
    return Arm(name, base, {**backbone, **(changes or {})}, re.split('[-/]', name)[0], **options)


def _real_search(name: str, base: str) -> list[Arm]:
    """Dense, analytic, even and searched patterns; RF-Next with both its branches, and with one."""
    return [
        *_dense_and_searched(name, base),
        _real(f'{name}/analytic', base, {PATTERN_KEY: f'geometric_d{D_MAX}'}),
        _real(f'{name}/even', base, {PATTERN_KEY: _EVEN}),
    ]


def _real_blocks(name: str, base: str) -> list[Arm]:
    """Dense and searched patterns, these also in blocks of channels, and an even mixture of blocks; RF-Next."""
    return [
        *_dense_and_searched(name, base),
        *(_real(f'{name}/searched-{n}', base, pattern_of=f'{name}/supernet', align=n) for n in (16, 32, 64)),
        _real(f'{name}/even-32', base, {PATTERN_KEY: f'even_d{D_MAX}', 'model.backbone.align': 32}),
    ]


def _dense_and_searched(name: str, base: str) -> list[Arm]:
    rf_next = dict(
        type='mmengine.RFNextResNet',
        depth=18,
        base_channels=32,
        stem_channels=32,
        norm_eval=False,
        search=_RF_NEXT,
        _delete_=True,
    )
    return [
        _real(f'{name}/dense', base),
        _real(f'{name}/supernet', base, _SUPERNET, searches=True),
        _real(f'{name}/searched', base, pattern_of=f'{name}/supernet'),
        _real(f'{name}/rf-next', base, {'model.backbone': rf_next}, searches=True),
        _real(f'{name}/rf-next-single', base, pattern_of=f'{name}/rf-next'),
    ]


def _real_backbones(name: str, base: str) -> list[Arm]:
    """ResNet-50 and PyConvResNet-50, a quarter as wide."""
    return [
        _real(
            f'{name}/{arm}',
            base,
            {
                'model.backbone': dict(
                    type=f'icconv_mm.{kind}',
                    depth=50,
                    base_channels=16,
                    stem_channels=16,
                    norm_eval=False,
                    _delete_=True,
                ),
                'model.neck.in_channels': [64, 128, 256, 512],
            },
        )
        for arm, kind in (('resnet', 'ResNet'), ('pyconv', 'PyConvResNet'))
    ]


_UFP = dict(type='icconv_mm.UnscathedPyramid', in_channels=128, out_channels=32, kernel_sizes=(1, 7, 15), norm_cfg=_GN)
_CELLS = {'model.bbox_head.num_classes': 3}
_UNTIL_BOXES = 3  # RetinaNet from random weights has 5 box AP after six epochs of BCCD, and 52 after 24
_STREET = {'model.decode_head.num_classes': 11}
_PSP = {**_STREET, 'model.auxiliary_head.num_classes': 11}
_FOUR_LEVELS = {'model.rpn_head.anchor_generator.strides': [4, 8, 16, 32]}
_NUCLEI_FPT = dict(_FPT, in_channels=[32, 64, 128, 256], out_channels=64, _delete_=True)
_BOXES_OF_MASKS = {f'model.tasks.instance.{key.removeprefix("model.")}': value for key, value in _BOXES_ALONE.items()}
_BOXES_OF_MASKS |= {'model.tasks.instance.type': 'mmdet.FasterRCNN', 'test_evaluator.0.metric.metric': ['bbox']}
_ALL_REAL = [
    *_real_search('camvid', 'semantic'),
    *_real_search('bccd', 'detection'),
    *_real_blocks('camvid192', 'semantic'),
    *_real_blocks('bccd192', 'detection'),
    *_real_backbones('camvid-backbone', 'semantic'),
    *_real_backbones('nuclei-backbone', 'instance'),
    _real('camvid-head/psp', 'semantic', _PSP, model='pspnet'),
    _real('camvid-head/pyconv', 'semantic', {**_PSP, **_HEAD}, model='pspnet'),
    _real('camvid-fpt/ufp', 'semantic', {**_STREET, 'model.neck': [_UFP]}, model='ufp_fpt'),
    _real('camvid-fpt/ufp-fpt', 'semantic', _STREET, model='ufp_fpt'),
    _real('bccd-neck/retinanet', 'detection', _CELLS, model='sepc', length=_UNTIL_BOXES),
    _real('bccd-neck/lite', 'detection', {**_CELLS, **_pyramid(**_LITE, ibn=True)}, model='sepc', length=_UNTIL_BOXES),
    _real('bccd-neck/sepc', 'detection', {**_CELLS, **_pyramid(**_FULL, ibn=True)}, model='sepc', length=_UNTIL_BOXES),
    _real('nuclei-fpt/fpn', 'instance', {**_FOUR_LEVELS, 'model.neck.num_outs': 4}),
    _real('nuclei-fpt/fpt', 'instance', {**_FOUR_LEVELS, 'model.neck': _NUCLEI_FPT}),
    _real('nuclei-joint/joint', 'all', _LOGGED, length=_HALF_OF_THREE),
    _real('nuclei-joint/upgrad', 'all', _UPGRAD, length=_HALF_OF_THREE),
    _real('nuclei-joint/joint-long', 'all', _LOGGED, length=2 * _HALF_OF_THREE),
    _real('nuclei-joint/upgrad-long', 'all', _UPGRAD, length=2 * _HALF_OF_THREE),
    _real('nuclei-joint/masks', 'all', only='instance'),
    _real('nuclei-joint/masks-short', 'all', only='instance', length=_HALF_OF_THREE),
    _real('nuclei-joint/semantic', 'all', only='semantic'),
    _real('nuclei-joint/boxes', 'all', _BOXES_OF_MASKS, only='instance'),
]

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
        *(
            _fpt(f'without-{kind}', [interaction for interaction in INTERACTIONS if interaction != kind])
            for kind in INTERACTIONS
        ),
        Arm('joint/joint', 'all', data=SCALES),
        Arm('joint/joint-half', 'all', _LOGGED, SCALES, length=_HALF_OF_FOUR),
        Arm('joint/upgrad', 'all', _UPGRAD, SCALES, length=_HALF_OF_FOUR),
        Arm('joint/joint-long', 'all', _LOGGED, SCALES, length=2 * _HALF_OF_FOUR),
        Arm('joint/boxes', 'mask_rcnn', _BOXES_ALONE, SCALES),
        Arm('joint/semantic', 'semantic_fpn', data=SCALES),
        Arm('joint/pose', 'pose_pyramid', data=SCALES),
        *_ALL_REAL,
    )
}
