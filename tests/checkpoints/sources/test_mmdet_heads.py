"""Heads of mmdet 1.x and 2.x: names, class order, and that the models of mmdet 3 load them strictly."""

import pytest
import torch
from layouts import detector, resnet, retinanet, with_prefix

from icconv_mm.checkpoints import UnmatchedKeysError, convert
from icconv_mm.checkpoints.convert import run_conversion

SMALL = {'width': 8, 'channels': 8, 'hidden': 12, 'classes': 5}
KINDS = [(cascade, mask) for cascade in (False, True) for mask in (False, True)]
IDS = ['Faster', 'Mask', 'Cascade', 'Cascade Mask']


def heads(state):
    return {key: value for key, value in state.items() if not key.startswith('backbone.')}


@pytest.mark.parametrize(('cascade', 'mask'), KINDS, ids=IDS)
def test_version_2_keeps_every_head_as_it_is(cascade, mask):
    state = detector(2, cascade, mask, **SMALL)
    conversion = run_conversion(state, 'ic-conv')
    assert conversion.layout == 'mmdet 2.x/3.x two-stage'
    converted = heads(conversion.state_dict)
    assert converted.keys() == heads(state).keys()
    assert all(torch.equal(converted[key], value) for key, value in heads(state).items())


@pytest.mark.parametrize(('cascade', 'mask'), KINDS, ids=IDS)
def test_version_1_gets_the_names_and_shapes_of_version_2(cascade, mask):
    conversion = run_conversion(detector(1, cascade, mask, **SMALL), 'ic-conv')
    assert conversion.layout == 'mmdet 1.x two-stage'
    expected = heads(convert(detector(2, cascade, mask, **SMALL), 'ic-conv'))
    assert {k: v.shape for k, v in heads(conversion.state_dict).items()} == {k: v.shape for k, v in expected.items()}


@pytest.mark.parametrize('param', ['weight', 'bias'])
def test_class_c_of_the_converted_file_is_class_c_plus_1_of_version_1(param):
    state = detector(1, mask=True, **SMALL)
    converted = convert(state, 'ic-conv')
    old_cls, new_cls = state[f'bbox_head.fc_cls.{param}'], converted[f'roi_head.bbox_head.fc_cls.{param}']
    old_reg, new_reg = state[f'bbox_head.fc_reg.{param}'], converted[f'roi_head.bbox_head.fc_reg.{param}']
    old_mask, new_mask = state[f'mask_head.conv_logits.{param}'], converted[f'roi_head.mask_head.conv_logits.{param}']
    classes = SMALL['classes']
    for c in range(classes):
        assert torch.equal(new_cls[c], old_cls[c + 1])
        assert torch.equal(new_reg[4 * c : 4 * c + 4], old_reg[4 * (c + 1) : 4 * (c + 1) + 4])
        assert torch.equal(new_mask[c], old_mask[c + 1])
    assert torch.equal(new_cls[classes], old_cls[0])  # the background is last
    assert len(new_reg) == 4 * classes and len(new_mask) == classes


def test_class_agnostic_regression_of_a_cascade_stays():
    state = detector(1, cascade=True, **SMALL)
    converted = convert(state, 'ic-conv')
    for stage in range(3):
        old, new = f'bbox_head.{stage}', f'roi_head.bbox_head.{stage}'
        assert torch.equal(converted[f'{new}.fc_reg.weight'], state[f'{old}.fc_reg.weight'])
        assert torch.equal(converted[f'{new}.fc_cls.bias'][-1], state[f'{old}.fc_cls.bias'][0])
        assert torch.equal(converted[f'{new}.fc_cls.bias'][:-1], state[f'{old}.fc_cls.bias'][1:])


def test_class_agnostic_mask_stays():
    state = detector(1, mask=True, **SMALL)
    for param in ('weight', 'bias'):
        state[f'mask_head.conv_logits.{param}'] = state[f'mask_head.conv_logits.{param}'][:1]
    converted = convert(state, 'ic-conv')
    assert torch.equal(converted['roi_head.mask_head.conv_logits.weight'], state['mask_head.conv_logits.weight'])


def test_retinanet_of_any_version():
    state = retinanet(width=8, channels=8)
    conversion = run_conversion(state, 'ic-conv')
    assert conversion.layout == 'mmdet one-stage'
    assert all(torch.equal(conversion.state_dict[key], value) for key, value in heads(state).items())
    bare = convert(retinanet(bare=True, width=8, channels=8), 'ic-conv')
    assert bare.keys() == conversion.state_dict.keys()


def test_sliced_tensors_do_not_carry_their_background_into_the_file():
    converted = convert(detector(1, mask=True, **SMALL), 'ic-conv')
    for key in ('bbox_head.fc_cls', 'bbox_head.fc_reg', 'mask_head.conv_logits'):
        value = converted[f'roi_head.{key}.weight']
        assert value.untyped_storage().nbytes() == value.numel() * value.element_size()


def test_other_keys_of_a_head_are_refused():
    state = detector(1, **SMALL) | {'bbox_head.relation.weight': torch.zeros(2)}
    with pytest.raises(
        UnmatchedKeysError, match=r"1 keys .*'mmdet 1.x two-stage'.*: bbox_head\.relation\.weight \(1\)"
    ):
        convert(state, 'ic-conv')
    state = detector(2, **SMALL) | {
        'roi_head.semantic_head.conv.weight': torch.zeros(2),
        'rpn_head.x.weight': torch.zeros(1),
    }
    with pytest.raises(UnmatchedKeysError, match=r'2 keys'):
        convert(state, 'ic-conv')


def test_wrong_class_counts_are_refused():
    state = detector(1, **SMALL)
    state['bbox_head.fc_reg.weight'] = torch.zeros(20, 12)
    message = r'bbox_head\.fc_reg\.weight: expected 24 rows \(6 classes with background\), found 20'
    with pytest.raises(ValueError, match=message):
        convert(state, 'ic-conv')
    del state['bbox_head.fc_cls.weight']
    with pytest.raises(ValueError, match=r'bbox_head\.fc_cls\.weight, which tells the number of classes, is missing'):
        convert(state, 'ic-conv')


def test_a_backbone_alone_needs_no_head():
    conversion = run_conversion(with_prefix('backbone.', resnet(18, 8)), 'ic-conv')
    assert conversion.layout == 'backbone alone'
