"""Boxes of mmdet 1.x against numbers computed with it."""

import pytest
import torch
from mmengine.registry import TASK_UTILS, init_default_scope

pytest.importorskip('mmdet.models')

EDGES = torch.tensor([0.0, 0.0, 1.0, 1.0])  # edges of a box less its first and last pixel
STRIDES = [8, 16, 32, 64, 128]
NINE = {'octave_base_scale': 4, 'scales_per_octave': 3, 'ratios': [0.5, 1.0, 2.0]}
ONE = {'octave_base_scale': 1, 'scales_per_octave': 1, 'ratios': [1.0]}
HEADS = {'SepcRetinaHead': NINE, 'SepcFreeAnchorRetinaHead': NINE, 'FSAFHead': ONE}


def build(**options):
    init_default_scope('mmdet')
    return TASK_UTILS.build(options)


@pytest.fixture(scope='module')
def coders(reference):
    stored = reference('sepc', 'sepc_legacy_coders')
    return {name: torch.from_numpy(stored[name]) for name in stored.names}


@pytest.mark.parametrize('head', HEADS)
def test_anchors_are_those_of_mmdet_1(reference, head):
    levels = reference('sepc', 'sepc_head_anchors').meta['heads'][head]
    generator = build(type='icconv_mm.PixelAnchorGenerator', strides=STRIDES, **HEADS[head])
    for level in range(5):
        expected = levels[f'level{level}']
        base = generator.base_anchors[level] - EDGES
        assert torch.equal(base, torch.tensor(expected['base_anchors']))
        grid = generator.single_level_grid_priors((2, 3), level, device='cpu') - EDGES
        assert torch.equal(grid, torch.tensor(expected['grid_2x3']))


@pytest.mark.parametrize('name, std', [('std1', (1, 1, 1, 1)), ('std_fa', (0.1, 0.1, 0.2, 0.2))])
def test_todays_delta_coder_on_edges_is_that_of_mmdet_1(coders, name, std):
    coder = build(type='DeltaXYWHBBoxCoder', target_stds=std)
    priors = coders['priors'] + EDGES
    encoded = coder.encode(priors, coders['gts'] + EDGES)
    torch.testing.assert_close(encoded, coders[f'delta_encode_{name}'], rtol=0, atol=1e-5)
    decoded = coder.decode(priors, coders['delta'], max_shape=(150, 180)) - EDGES
    torch.testing.assert_close(decoded, coders[f'delta_decode_{name}'], rtol=0, atol=1e-4)


def test_todays_distance_coder_on_edges_is_that_of_mmdet_1_in_another_order(coders):
    coder, order = build(type='TBLRBBoxCoder', normalizer=1.0), [1, 0, 2, 3]
    priors = coders['priors'] + EDGES
    encoded = coder.encode(priors, coders['gts'] + EDGES)[:, order]
    torch.testing.assert_close(encoded, coders['tblr_encode'], rtol=0, atol=1e-5)
    decoded = coder.decode(priors, coders['tblr_delta'][:, order], max_shape=(150, 180)) - EDGES
    torch.testing.assert_close(decoded, coders['tblr_decode'], rtol=0, atol=1e-4)
