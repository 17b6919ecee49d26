"""Conversion of the authors' SEPC checkpoints: the key lists of all their configs load strictly and mean the same."""

import pytest
import torch
from layouts import tensor
from mmengine.registry import MODELS, init_default_scope

from icconv_mm.checkpoints import UnmatchedKeysError, convert
from icconv_mm.checkpoints.convert import run_conversion
from icconv_mm.necks import SEPC

CONFIGS = [
    *(f'{family}/{kind}_{name}.py' for family, name in (('retina', 'retinanet'), ('freeanchor', 'freeanchor'))
      for kind in ('pconv', 'ibn', 'sepclite', 'sepc')),
    *(f'fsaf/{kind}_fsaf.py' for kind in ('pconv', 'ibn', 'sepclite', 'sepc')),
    'fsaf/fsaf_baseline.py',
]  # fmt: skip
NAMES = {'pconv': 'PConv', 'ibn': 'PConv and iBN', 'sepclite': 'SEPC-lite', 'sepc': 'SEPC', 'fsaf': 'baseline'}


@pytest.fixture(scope='module')
def keys(reference):
    return reference('sepc', 'sepc_checkpoint_keys').meta


def official(keys, config):
    """A checkpoint with the keys and shapes of one of the authors' configs."""
    shapes = {**keys[config]['neck'], **keys[config]['bbox_head']}
    backbone = {key: tensor(key, 4) for key in keys['backbone_keys']}
    return {**backbone, **{key: tensor(key, *shape) for key, shape in shapes.items()}}


@pytest.mark.parametrize('config', CONFIGS)
def test_every_released_layout(keys, config):
    """Every key has a place, and neck and head load into the model of our recipe, nothing missing."""
    pytest.importorskip('mmdet.models')
    state = official(keys, config)
    conversion = run_conversion({'state_dict': state, 'meta': {}}, 'sepc')
    kind = config.split('/')[1].split('_')[0]
    assert conversion.layout.endswith(f', {NAMES[kind]}') and not conversion.left
    assert ('FSAF' in conversion.layout) == ('fsaf' in config)
    converted = conversion.state_dict
    assert {key for key in state if key.startswith('backbone.')} <= set(converted)

    old = keys[config]['model_cfg']
    necks = [dict(neck) for neck in (old['neck'] if isinstance(old['neck'], list) else [old['neck']])]
    necks[0]['add_extra_convs'] = 'on_input'
    if len(necks) == 2:
        options = {'pconv_deform': 'pconv_deform', 'lcconv_deform': 'lcconv_deform', 'ibn': 'iBN'}
        necks[1] = {'type': 'icconv_mm.SEPC', 'in_channels': 256, 'out_channels': 256, 'num_outs': 5} | {
            name: necks[1][theirs] for name, theirs in options.items()
        }
    head = old['bbox_head']
    anchors = {
        'type': 'icconv_mm.PixelAnchorGenerator',
        'octave_base_scale': head['octave_base_scale'],
        'scales_per_octave': head['scales_per_octave'],
        'ratios': head['anchor_ratios'],
        'strides': head['anchor_strides'],
    }
    init_default_scope('mmdet')
    with torch.device('meta'):
        neck = MODELS.build(necks if len(necks) > 1 else necks[0])
        head = MODELS.build(
            {
                'type': 'icconv_mm.SplitFeatureHead',
                'head_type': head['type'].replace('Sepc', ''),
                'num_classes': 80,
                'in_channels': 256,
                'stacked_convs': head['stacked_convs'],
                'anchor_generator': anchors,
            }
        )
    expected = {f'neck.{key}': value for key, value in neck.state_dict().items()}
    expected |= {f'bbox_head.{key}': value for key, value in head.state_dict().items()}
    got = {key: value for key, value in converted.items() if not key.startswith('backbone.')}
    assert {key: value.shape for key, value in got.items()} == {key: value.shape for key, value in expected.items()}


def small(num_anchors=9, **options):
    """A file of the authors' layout with 4 channels, its neck's keys from this package's by the inverse renaming."""
    inverse = {'from_coarser': 'Pconv.0', 'from_same': 'Pconv.1', 'from_finer': 'Pconv.2', 'norm': 'bn'}
    inverse |= {'reg_conv': 'lconv', 'cls_conv': 'cconv', 'reg_norm': 'lbn', 'cls_norm': 'cbn', 'pconvs': 'Pconvs'}
    state = {'backbone.conv1.weight': tensor('c', 4, 3, 7, 7), 'neck.0.fpn_convs.0.conv.bias': tensor('f', 4)}
    for key, value in SEPC(4, 4, 5, **options).state_dict().items():
        name = '.'.join(inverse.get(part, part) for part in key.split('.'))
        state[f'neck.1.{name}'] = tensor(key, *value.shape)
    for layer, rows in (('cls', 80 * num_anchors), ('reg', 4 * num_anchors)):
        for name, shape in (('weight', (rows, 4, 3, 3)), ('bias', (rows,))):
            state[f'bbox_head.retina_{layer}.{name}'] = tensor(layer + name, *shape)
    return state


def test_parameters_keep_their_values_and_meaning():
    """Which key became which: the same as the parity test of the neck, whose outputs are the authors'."""
    state = small(pconv_deform=True, lcconv_deform=True, ibn=True)
    converted = convert(state, 'sepc')
    for new, old in {
        'neck.1.pconvs.2.from_coarser.weight': 'neck.1.Pconvs.2.Pconv.0.weight',
        'neck.1.pconvs.0.from_same.conv_offset.bias': 'neck.1.Pconvs.0.Pconv.1.conv_offset.bias',
        'neck.1.pconvs.3.from_finer.bias': 'neck.1.Pconvs.3.Pconv.2.bias',
        'neck.1.pconvs.1.norm.running_var': 'neck.1.Pconvs.1.bn.running_var',
        'neck.1.cls_conv.weight': 'neck.1.cconv.weight',
        'neck.1.reg_conv.conv_offset.weight': 'neck.1.lconv.conv_offset.weight',
        'neck.1.cls_norm.weight': 'neck.1.cbn.weight',
        'neck.1.reg_norm.num_batches_tracked': 'neck.1.lbn.num_batches_tracked',
        'bbox_head.retina_reg.weight': 'bbox_head.retina_reg.weight',
    }.items():
        assert torch.equal(converted[new], state[old]), new
    neck = {key.removeprefix('neck.1.'): value for key, value in converted.items() if key.startswith('neck.1.')}
    SEPC(4, 4, 5, pconv_deform=True, lcconv_deform=True, ibn=True).load_state_dict(neck)


@pytest.mark.parametrize('param', ['weight', 'bias'])
def test_fsafs_first_two_distances_change_locations(param):
    state = small(num_anchors=1)
    key = f'bbox_head.retina_reg.{param}'
    converted = convert(state, 'sepc')
    assert torch.equal(converted[key], state[key][[1, 0, 2, 3]]) and not torch.equal(converted[key], state[key])
    assert torch.equal(converted[f'bbox_head.retina_cls.{param}'], state[f'bbox_head.retina_cls.{param}'])


def test_a_lite_checkpoint_does_not_fit_the_full_neck():
    state = convert(small(lcconv_deform=True, ibn=True), 'sepc')
    neck = {key.removeprefix('neck.1.'): value for key, value in state.items() if key.startswith('neck.1.')}
    SEPC(4, 4, 5, lcconv_deform=True, ibn=True).load_state_dict(neck)
    with pytest.raises(RuntimeError, match=r'Missing key\(s\).*"pconvs\.0\.from_coarser\.conv_offset\.weight"'):
        SEPC(4, 4, 5, pconv_deform=True, lcconv_deform=True, ibn=True).load_state_dict(neck)


def test_unknown_keys_are_refused_and_can_be_renamed():
    state = small() | {'neck.1.gate.weight': torch.zeros(2)}
    with pytest.raises(UnmatchedKeysError, match=r"1 keys .*'mmdet 1.x RetinaNet or FreeAnchor, PConv'.*gate\.weight"):
        convert(state, 'sepc')
    assert 'neck.1.gate.weight' not in convert(state, 'sepc', allow_unmatched=True)


@pytest.mark.parametrize(
    'change, message',
    [
        (
            lambda s: {k: v for k, v in s.items() if 'retina_reg' not in k},
            r'no bbox_head\.retina_reg\.weight: not one of',
        ),
        (lambda s: convert(s, 'sepc'), r'neck\.1\.pconvs.*: converted already, it loads as it is'),
    ],
    ids=['no head', 'converted'],
)
def test_files_of_another_kind(change, message):
    with pytest.raises(ValueError, match=message):
        convert(change(small()), 'sepc')
