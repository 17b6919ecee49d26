"""Heads of mmdet on pairs of maps: each branch reads its own, keys and priors are as promised."""

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from icconv_mm.errors import UserError

pytest.importorskip('mmdet.models')

CHANNELS, SIZES, STRIDES = 8, [(9, 12), (5, 6), (3, 3)], [8, 16, 32]
ONE = {'type': 'AnchorGenerator', 'octave_base_scale': 4, 'scales_per_octave': 1, 'ratios': [1.0], 'strides': STRIDES}
NINE = {**ONE, 'scales_per_octave': 3, 'ratios': [0.5, 1.0, 2.0]}
NO_NORM = {'norm_cfg': None}
DELTA = {'type': 'DeltaXYWHBBoxCoder', 'target_stds': [0.1, 0.1, 0.2, 0.2]}
POINTS = {'type': 'MlvlPointGenerator', 'offset': 0, 'strides': STRIDES}
DISTANCE = {'type': 'DistancePointBBoxCoder'}
# head, its options, outputs that belong to the classification branch (the others to localisation)
HEADS = {
    'RetinaHead': ({'anchor_generator': NINE}, 1),
    'FreeAnchorRetinaHead': ({'anchor_generator': NINE, 'bbox_coder': DELTA}, 1),
    'FSAFHead': ({'anchor_generator': ONE, 'bbox_coder': {'type': 'TBLRBBoxCoder'}, 'reg_decoded_bbox': True}, 1),
    'ATSSHead': ({'anchor_generator': ONE, 'bbox_coder': DELTA, **NO_NORM}, 1),
    'GFLHead': ({'anchor_generator': ONE, **NO_NORM}, 1),
    'RetinaSepBNHead': ({'anchor_generator': NINE, 'num_ins': 3, 'norm_cfg': {'type': 'BN'}}, 1),  # a tower per level
    'RTMDetSepBNHead': ({'anchor_generator': POINTS, 'bbox_coder': DISTANCE, 'with_objectness': False}, 1),
    'FCOSHead': ({'strides': STRIDES, 'regress_ranges': ((-1, 64), (64, 128), (128, 1e8)), **NO_NORM}, 1),
}


def build(head_type, stacked_convs=0, **options):
    init_default_scope('mmdet')
    options = {**HEADS[head_type][0], **options}
    head = {'type': 'icconv_mm.SplitFeatureHead', 'head_type': head_type, 'num_classes': 3, 'in_channels': CHANNELS}
    return MODELS.build({**head, 'feat_channels': CHANNELS, 'stacked_convs': stacked_convs, **options})


def pairs():
    return [tuple(torch.randn(2, CHANNELS, *size) for _ in range(2)) for size in SIZES]


def changed(head, levels, branch):
    """Which outputs change with one of the two maps."""
    other = [tuple(x + (number == branch) for number, x in enumerate(pair)) for pair in levels]
    return [
        not torch.equal(one, another)
        for output, outputs in zip(head(levels), head(other), strict=True)
        for one, another in zip(output[:1], outputs[:1])
    ]


@pytest.mark.parametrize('stacked_convs', [0, 2])
@pytest.mark.parametrize('name', HEADS)
def test_each_branch_reads_its_own_map(name, stacked_convs):
    head = build(name, stacked_convs)
    head.init_weights()
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    levels, of_cls = pairs(), HEADS[name][1]
    if name == 'FCOSHead':
        head.eval()
    by_cls, by_reg = changed(head, levels, 0), changed(head, levels, 1)
    assert by_cls[:of_cls] == [True] * of_cls and not any(by_reg[:of_cls])
    expected = [name == 'FCOSHead'] if len(by_cls) == 3 else []  # whose centerness belongs to classification
    assert by_cls[of_cls:] == [False, *expected]
    assert by_reg[of_cls:] == [True, *(not value for value in expected)]


@pytest.mark.parametrize('stacked_convs', [0, 2])
@pytest.mark.parametrize('name', HEADS)
def test_is_the_upstream_head_with_its_keys(name, stacked_convs):
    head = build(name, stacked_convs)
    options = {'num_classes': 3, 'in_channels': CHANNELS, 'feat_channels': CHANNELS, 'stacked_convs': stacked_convs}
    upstream = MODELS.build({'type': name, **options, **HEADS[name][0]})
    assert type(head) is type(upstream)
    assert list(head.state_dict()) == list(upstream.state_dict())
    head.load_state_dict(upstream.state_dict())
    levels = pairs()
    same = [(cls, cls) for cls, _ in levels]
    for got, want in zip(head.eval()(same), upstream.eval()([cls for cls, _ in levels]), strict=True):
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize('name', HEADS)
def test_prior_shift_moves_priors_by_whole_cells(name):
    plain, shifted = build(name), build(name, prior_shift=1)
    priors, moved = (head.prior_generator.grid_priors(SIZES, device='cpu') for head in (plain, shifted))
    for stride, one, other in zip(STRIDES, priors, moved):
        torch.testing.assert_close(other, one + stride, rtol=0, atol=0)


def test_shifted_priors_lie_where_the_maps_of_an_unpadded_neck_look():
    """The neck's output at (i, j) is centred on cell (i + 1, j + 1) of its input."""
    from icconv_mm.necks import SEPC

    neck = SEPC(1, 1, 3, pconv_num=1)
    with torch.no_grad():
        for parameter in neck.parameters():
            parameter.zero_()
        neck.pconvs[0].from_same.weight[..., 1, 1] = 1
        neck.cls_conv.weight[..., 1, 1] = 1
    levels = [torch.zeros(1, 1, *size) for size in SIZES]
    levels[0][0, 0, 4, 7] = 1
    row, column = neck(levels)[0][0][0, 0].nonzero()[0].tolist()
    priors = build('RetinaHead', prior_shift=1, anchor_generator=ONE | {'center_offset': 0.5}).prior_generator
    height, width = SIZES[0][0] - 2, SIZES[0][1] - 2
    box = priors.single_level_grid_priors((height, width), 0, device='cpu')[row * width + column]
    center = (box[:2] + box[2:]) / 2
    assert center.tolist() == [7.5 * 8, 4.5 * 8]  # the centre of the lit cell


def test_heads_without_two_towers():
    init_default_scope('mmdet')
    head = {'type': 'icconv_mm.SplitFeatureHead', 'num_classes': 3, 'in_channels': CHANNELS}
    with pytest.raises(ValueError, match=r'RPNHead needs two towers .* cls_convs: none'):
        MODELS.build({**head, 'head_type': 'RPNHead', 'num_classes': 1, 'anchor_generator': ONE})
    with pytest.raises(ValueError, match=r'TOODHead needs two towers .* cls_convs: none'):
        options = {'num_dcn': 0, 'anchor_type': 'anchor_free', 'anchor_generator': ONE, 'feat_channels': CHANNELS}
        MODELS.build({**head, 'head_type': 'TOODHead', **options, 'norm_cfg': None})


def test_a_head_that_reads_a_pair_elsewhere_is_told_so():
    """What the maps have in common may be asked for; anything else is one message."""
    from icconv_mm.necks import SEPC

    pair = SEPC(1, 1, 2, lcconv_padding=1)([torch.ones(1, 1, 4, 4), torch.ones(1, 1, 2, 2)])[0]
    assert pair.shape == pair.size() == (1, 1, 4, 4) and pair.new_tensor([1.5]).dtype == torch.float32
    assert torch.ones(1, dtype=torch.long).type_as(pair).dtype == pair.dtype
    message_of = r"SEPC with branches='both' gives a pair .* icconv_mm\.SplitFeatureHead read it; .* take PConv"
    with pytest.raises(UserError, match=f'conv2d: {message_of}'):
        torch.nn.Conv2d(1, 1, 1)(pair)
    with pytest.raises(UserError, match=f'flatten: {message_of}'):
        pair.flatten(2)
    assert not hasattr(pair, 'no_such_thing')


@pytest.mark.parametrize('stacked_convs', [0, 1])
def test_plain_maps_are_refused(stacked_convs):
    head = build('RetinaHead', stacked_convs)
    with pytest.raises(ValueError, match=r'takes a pair .* per level.*; got a map of shape \[2, 8, 9, 12\]'):
        head([cls for cls, _ in pairs()])
    with pytest.raises(ValueError, match=r'got list'):
        head([[*pair, pair[0]] for pair in map(list, pairs())])
