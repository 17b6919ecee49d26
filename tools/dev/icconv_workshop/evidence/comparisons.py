"""What is compared: arms against a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icconv_workshop.evidence.arms import ARMS, D_MAX, INTERACTIONS, Arm


@dataclass(frozen=True)
class Row:
    """One line of a comparison: a test of an arm, by the name that the reader sees."""

    title: str
    arm: str
    test: str = ''


@dataclass(frozen=True)
class Comparison:
    """Arms against a baseline.

    Attributes:
        name: What ``--comparisons`` calls it.
        claim: What the paper claims.
        metrics: What is compared, the one that decides first.
        rows: The arms, the baseline first.
        costs: Rows that are shown for what they cost, not compared.
    """

    name: str
    claim: str
    metrics: Sequence[str]
    rows: Sequence[Row]
    costs: Sequence[Row] = ()


def _rows(family: str, titles: Mapping[str, str]) -> list[Row]:
    return [Row(title, f'{family}/{name}') for name, title in titles.items()]


_PATTERNS = {'dense': 'dense', 'analytic': f'analytic (geometric_d{D_MAX})', 'searched': 'searched'}
_COSTS = {'supernet': 'supernet, of which the pattern is', 'dense-long': 'dense, trained as long as both cost'}
_NETS = {'resnet': 'ResNet-50 / 4', 'pyconv': 'PyConvResNet-50 / 4', 'pyconv-hg': 'PyConvHGResNet-50 / 4'}
_IC = 'Searched dilations gain 2 to 4 AP at equal cost (IC-Conv, CVPR 2021).'
_PYCONV = 'Pyramidal convolutions gain 1 to 2 points at equal cost (PyConv, 2020).'

_JOINT = {
    'joint': 'one for all, at half the cost of three',
    'upgrad': 'one for all, by UPGrad, at half the cost of three',
    'joint-long': 'one for all, at the cost of three',
    'upgrad-long': 'one for all, by UPGrad, at the cost of three',
}
_SHORT = {'masks-short': 'a network of its own, as many steps as at half the cost'}
_REAL_PATTERNS = {
    **_PATTERNS,
    'even': 'all dilations alike',
    'rf-next-single': 'RF-Next, one branch',
    'rf-next': 'RF-Next, two branches',
}
_BLOCKS = {
    'dense': 'dense',
    'searched': 'searched',
    **{f'searched-{block}': f'searched, in blocks of {block}' for block in (16, 32, 64)},
    'even-32': 'all dilations alike, in blocks of 32',
    'rf-next-single': 'RF-Next, one branch',
}
_REAL = [
    *(
        Comparison(
            name,
            'A searched pattern of whole blocks of channels gains what one of any runs gains.',
            (metric,),
            _rows(name, _BLOCKS),
            costs=_rows(name, {'supernet': 'supernet, of which the patterns are'}),
        )
        for name, metric in (('camvid192', 'mIoU'), ('bccd192', 'box/AP'))
    ),
    *(
        Comparison(
            name,
            _IC + ' RF-Next gains 1 to 2 AP with branches (2022).',
            (metric,),
            _rows(name, _REAL_PATTERNS),
            costs=_rows(name, {'supernet': 'supernet, of which the pattern is'}),
        )
        for name, metric in (('camvid', 'mIoU'), ('bccd', 'box/AP'))
    ),
    Comparison(
        'camvid-backbone',
        _PYCONV,
        ('mIoU',),
        _rows('camvid-backbone', {key: _NETS[key] for key in ('resnet', 'pyconv')}),
    ),
    Comparison(
        'nuclei-backbone',
        _PYCONV,
        ('mask/AP', 'box/AP'),
        _rows('nuclei-backbone', {key: _NETS[key] for key in ('resnet', 'pyconv')}),
    ),
    Comparison(
        'camvid-head',
        "PyConvSegNet's head gains over that of PSPNet (PyConv, 2020).",
        ('mIoU',),
        _rows('camvid-head', {'psp': 'PSPHead', 'pyconv': 'PyConvHead'}),
    ),
    Comparison(
        'camvid-fpt',
        'FPT gains over the pyramid that it stands on (ECCV 2020).',
        ('mIoU',),
        _rows('camvid-fpt', {'ufp': 'UFP', 'ufp-fpt': 'UFP and FPT'}),
    ),
    Comparison(
        'bccd-neck',
        'SEPC gains 3.5 AP on RetinaNet (CVPR 2020).',
        ('box/AP',),
        _rows('bccd-neck', {'retinanet': 'RetinaNet', 'lite': 'SEPC-lite', 'sepc': 'SEPC'}),
    ),
    Comparison(
        'nuclei-fpt',
        'FPT gains 2 AP of boxes and 3 of masks over FPN (ECCV 2020).',
        ('mask/AP', 'box/AP'),
        _rows('nuclei-fpt', {'fpn': 'FPN', 'fpt': 'FPT'}),
    ),
    *(
        Comparison(
            f'nuclei-joint-{what}',
            'One network for all tasks comes close to one for each, at a fraction of the cost.',
            (metric,),
            _rows('nuclei-joint', {what: 'a network of its own', **_JOINT, **(_SHORT if what == 'masks' else {})}),
        )
        for what, metric in (('boxes', 'box/AP'), ('masks', 'mask/AP'), ('semantic', 'mIoU'))
    ),
]

COMPARISONS = {
    comparison.name: comparison
    for comparison in (
        Comparison(
            'search',
            _IC,
            ('box/AP', 'box/AP_context'),
            _rows('search', _PATTERNS),
            costs=_rows('search', _COSTS),
        ),
        Comparison('search-pose', _IC, ('pose/AP',), _rows('search-pose', _PATTERNS), _rows('search-pose', _COSTS)),
        Comparison(
            'pose-scales',
            'Testing at three scales gains about 3.5 AP of bottom-up pose (IC-Conv, CVPR 2021).',
            ('pose/AP',),
            [
                Row('dense, one scale', 'search-pose/dense'),
                Row('dense, three scales', 'search-pose/dense', 'multi-scale'),
            ],
        ),
        Comparison(
            'sepc',
            'SEPC gains 3.5 AP on RetinaNet, most of it by pyramid convolution and integrated batch norm (CVPR 2020).',
            ('box/AP',),
            _rows(
                'sepc',
                {
                    'retinanet': 'RetinaNet',
                    'pconv': 'PConv',
                    'pconv-ibn': 'PConv, iBN',
                    'lite-without-ibn': 'SEPC-lite without iBN',
                    'lite': 'SEPC-lite',
                    'sepc-without-ibn': 'SEPC without iBN',
                    'sepc': 'SEPC',
                },
            ),
        ),
        Comparison('backbone-classification', _PYCONV, ('accuracy/top1',), _rows('backbone-classification', _NETS)),
        Comparison('backbone-detection', _PYCONV, ('box/AP',), _rows('backbone-detection', _NETS)),
        Comparison('backbone-segmentation', _PYCONV, ('mIoU',), _rows('backbone-segmentation', _NETS)),
        Comparison(
            'head',
            "PyConvSegNet's head gains over that of PSPNet (PyConv, 2020).",
            ('mIoU',),
            _rows('head', {'psp': 'PSPHead', 'pyconv': 'PyConvHead'}),
        ),
        Comparison(
            'fpt',
            'FPT gains 2 AP of boxes and 3 of masks over FPN (ECCV 2020).',
            ('box/AP', 'mask/AP'),
            _rows(
                'fpt',
                {
                    'fpn': 'FPN',
                    'fpt': 'FPT',
                    **{f'without-{interaction}': f'FPT without {interaction}' for interaction in INTERACTIONS},
                },
            ),
        ),
        *_REAL,
        *(
            Comparison(
                f'joint-{what}',
                'One network for all tasks comes close to one for each, at a fraction of the cost.',
                (metric,),
                [
                    Row('a network of its own', alone),
                    Row('one for all', 'joint/joint'),
                    Row('one for all, at half the cost of four', 'joint/joint-half'),
                    Row('one for all, by UPGrad, at half the cost of four', 'joint/upgrad'),
                    Row('one for all, at the cost of four', 'joint/joint-long'),
                ],
            )
            for what, metric, alone in (
                ('boxes', 'box/AP', 'joint/boxes'),
                ('masks', 'mask/AP', 'fpt/fpn'),
                ('semantic', 'mIoU', 'joint/semantic'),
                ('pose', 'pose/AP', 'joint/pose'),
            )
        ),
    )
}


def arms_of(names: Sequence[str]) -> list[Arm]:
    """The arms of these comparisons, those for costs last; a supernet comes before its pattern."""
    chosen = [COMPARISONS[name] for name in names]
    rows, costs = (
        [row.arm for comparison in chosen for row in getattr(comparison, part)] for part in ('rows', 'costs')
    )
    arms: dict[str, Arm] = {}
    for name in (*rows, *costs):
        if (source := ARMS[name].pattern_of) is not None:
            arms.setdefault(source, ARMS[source])
        arms.setdefault(name, ARMS[name])
    return list(arms.values())


def groups_of(comparisons: Sequence[Comparison]) -> list[list[Arm]]:
    """Their arms in the order in which an experiment does them, those together that are done seed by seed."""
    rows = [arms_of([comparison.name])[: _compared(comparison)] for comparison in comparisons]
    return [*rows, *([arm] for arm in arms_of([comparison.name for comparison in comparisons]))]


def _compared(comparison: Comparison) -> int:
    """How many of its arms come before those for costs."""
    names = [arm.name for arm in arms_of([comparison.name])]
    return 1 + max(names.index(row.arm) for row in comparison.rows)
