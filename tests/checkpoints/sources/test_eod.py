"""Heads of detectors of EOD: names, rows, what is refused; tests/parity/test_eod_boxes.py has the numbers."""

from collections import Counter

import numpy as np
import pytest
import torch
from layouts import detector, eod, with_prefix

from icconv_mm.checkpoints import UnmatchedKeysError, convert, convert_file
from icconv_mm.checkpoints.convert import run_conversion

SMALL = {'width': 8, 'channels': 8, 'hidden': 12, 'classes': 5}
KINDS = {(False, False): 'Faster', (False, True): 'Mask', (True, False): 'Cascade', (True, True): 'Cascade Mask'}


def small(**options):
    return eod(**{**SMALL, 'mask_rows': 5, **options})


@pytest.mark.parametrize(('cascade', 'mask'), KINDS, ids=KINDS.values())
def test_keys_and_shapes_are_those_of_mmdet(cascade, mask):
    conversion = run_conversion(small(cascade=cascade, mask=mask), 'ic-conv')
    assert conversion.layout == f'EOD {KINDS[cascade, mask]} R-CNN' and not conversion.left
    expected = convert(detector(2, cascade, mask, **SMALL), 'ic-conv')
    assert {key: value.shape for key, value in conversion.state_dict.items()} == {
        key: value.shape for key, value in expected.items()
    }


@pytest.mark.parametrize('param', ['weight', 'bias'])
def test_rows_of_classes_and_anchors(param):
    state = small(mask=True, mask_rows=6)
    converted = convert(state, 'ic-conv')
    cls, reg = (state[f'bbox_head.fc_rcnn_{name}.{param}'] for name in ('cls', 'loc'))
    assert torch.equal(converted[f'roi_head.bbox_head.fc_cls.{param}'], torch.cat([cls[1:], cls[:1]]))
    assert torch.equal(converted[f'roi_head.bbox_head.fc_reg.{param}'], reg[4:])
    assert torch.equal(converted[f'roi_head.mask_head.conv_logits.{param}'], state[f'mask_head.predict.{param}'][1:])
    both = state[f'roi_head.conv_cls.{param}']
    assert torch.equal(converted[f'rpn_head.rpn_cls.{param}'], both[[1, 3, 5]] - both[[0, 2, 4]])
    agnostic = small(softmax=False, agnostic=True)
    converted = convert(agnostic, 'ic-conv')
    for old, new in (('roi_head.conv_cls', 'rpn_head.rpn_cls'), ('bbox_head.fc_rcnn_loc', 'roi_head.bbox_head.fc_reg')):
        assert torch.equal(converted[f'{new}.{param}'], agnostic[f'{old}.{param}'])


def test_a_sigmoid_of_the_difference_is_the_softmax():
    logits = torch.randn(50, 6, dtype=torch.float64)
    softmax = logits.view(50, 3, 2).softmax(-1)[..., 1]
    torch.testing.assert_close((logits[:, 1::2] - logits[:, ::2]).sigmoid(), softmax, rtol=1e-13, atol=0)


def test_every_stage_gets_the_one_mask_head():
    state = small(cascade=True, mask=True)
    converted = convert(state, 'ic-conv')
    for stage in range(3):
        for old, new in (('head.3.0', 'convs.3.conv'), ('head.4', 'upsample'), ('predict', 'conv_logits')):
            assert torch.equal(converted[f'roi_head.mask_head.{stage}.{new}.weight'], state[f'mask_head.{old}.weight'])


def renamed(state, **names):
    return {
        '.'.join([names.get(key.split('.')[0], key.split('.')[0]), *key.split('.')[1:]]): state[key] for key in state
    }


@pytest.mark.parametrize('stem', ['layer0', 'both'])
def test_names_that_whoever_trained_gave(stem):
    names = dict(neck='fpn', roi_head='rpn', cascade_head='boxes', mask_head='my_mask')
    converted = convert(renamed(small(cascade=True, mask=True, stem=stem), **names), 'ic-conv')
    expected = convert(small(cascade=True, mask=True), 'ic-conv')
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], value) for key, value in expected.items())


def test_wrapped_layers_of_the_mask_head_are_placed_alike():
    state = small(mask=True)
    wrapped = {key.replace('head.4.', 'head.4.0.').replace('predict', 'head.5.0.0'): state[key] for key in state}
    assert convert(wrapped, 'ic-conv').keys() == convert(state, 'ic-conv').keys()


def test_two_different_stems_are_refused():
    state = small(stem='both')
    state['backbone.layer0.0.weight'] = state['backbone.layer0.0.weight'] + 1
    with pytest.raises(ValueError, match=r'layer0\.0\.weight would overwrite backbone\.conv1\.weight'):
        convert(state, 'ic-conv')


def test_half_numbers_lose_nothing_in_the_difference():
    state = {key: value.half() if value.is_floating_point() else value for key, value in small().items()}
    both = state['roi_head.conv_cls.weight'].float()
    assert torch.equal(convert(state, 'ic-conv')['rpn_head.rpn_cls.weight'], both[1::2] - both[::2])


def checkpoint(state, **other):
    """A file as EOD's saver writes it."""
    return {
        'epoch': 14,
        'iter': 102606,
        'metric_val': np.float64(0.389),
        'model': state,
        'optimizer': {'state': {0: {'momentum_buffer': torch.zeros(2, 2, 3, 3)}}, 'param_groups': [{'lr': 0.02}]},
        'lr_scheduler': {'milestones': Counter({9: 1, 12: 1}), 'last_epoch': 14},
        **other,
    }


@pytest.mark.parametrize('state', [with_prefix('module.', small()), {'model_cfg': {'net': []}, **small()}])
def test_a_file_as_its_framework_writes_it(tmp_path, state):
    torch.save(checkpoint(state), tmp_path / 'ckpt_e14.pth')
    assert convert_file(tmp_path / 'ckpt_e14.pth', tmp_path / 'out.pth', 'ic-conv').layout == 'EOD Faster R-CNN'


def test_of_a_network_and_its_moving_average_one_is_chosen(tmp_path, tool):
    average = {key: value.float() + 1 for key, value in small().items()}
    ema = {'ema_state_dict': average, 'warmup': 1000, 'decay': 0.9998}
    path, out = tmp_path / 'ckpt_e14.pth', tmp_path / 'out.pth'
    torch.save(checkpoint(small(), ema=ema), path)
    with pytest.raises(SystemExit) as end:
        tool.main([str(path), str(out)])
    assert "holds 2 networks, under 'model', 'ema'; say which (weights)" in str(end.value) and not out.exists()
    with pytest.raises(SystemExit, match="no weights under 'mean'; found 'model', 'ema'"):
        tool.main([str(path), str(out), '--weights', 'mean'])
    tool.main([str(path), str(out), '--weights', 'ema'])
    written = torch.load(out, weights_only=True)['state_dict']
    assert torch.equal(written['backbone.conv1.weight'], average['backbone.conv1.weight'])


@pytest.mark.parametrize('student', ['student.', ''])
@pytest.mark.parametrize('chosen', ['student', 'teacher.'])
def test_of_a_student_and_its_teacher_one_is_converted_with_its_heads(student, chosen):
    other = {key: value + 1 for key, value in small().items()}
    both = with_prefix(student, small()) | with_prefix('teacher.', other)
    with pytest.raises(ValueError, match=r'2 IC-Conv backbones, under .*; say which'):
        convert(both, 'ic-conv')
    with pytest.raises(ValueError, match=r"prefix 'ema\.'; found '.*', 'teacher\.backbone\.'"):
        convert(both, 'ic-conv', backbone_prefix='ema.')
    prefix = chosen if chosen == 'teacher.' else student
    converted = convert(both, 'ic-conv', backbone_prefix=f'{prefix}backbone.')
    expected = convert(other if chosen == 'teacher.' else small(), 'ic-conv')
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], value) for key, value in expected.items())


def without(*names):
    return lambda state: [state.pop(key) for key in list(state) if any(name in key for name in names)]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda state: state.update({'roi_head.conv_cls.weight': torch.zeros(5, 8, 1, 1)}),
            r'roi_head\.conv_cls\.weight: expected 3 or 6 rows \(3 anchors\), found 5',
        ),
        (
            lambda state: state.update(  # of a sigmoid
                {'bbox_head.fc_rcnn_cls.weight': torch.zeros(5, 12), 'bbox_head.fc_rcnn_cls.bias': torch.zeros(5)}
            ),
            r'fc_rcnn_loc\.weight: expected 20 rows \(5 classes with background\), found 24',
        ),
        (without('fc_rcnn_cls'), r"'EOD without the box head \(fc_rcnn_cls,"),
        (
            without('head.4'),
            r'mask_head: its convolutions have kernels of \[3, 3, 3, 3, 1\]; a mask head has some of 3, one of 2',
        ),
        (
            lambda state: state.update({'mask_head.predict.weight': torch.zeros(9, 8, 1, 1)}),
            r'mask_head\.predict\.weight: expected 6 rows \(6 classes with background\), found 9',
        ),
        (without('conv_loc'), r"40 keys .*'EOD without the RPN \(conv3x3, conv_loc\)"),
        (lambda state: state.update({'mask_head.norm.weight': torch.zeros(8)}), r'1 keys .*mask_head\.norm\.weight'),
    ],
)
def test_what_fits_no_layout_is_refused(change, message):
    state = small(mask=True)
    change(state)
    with pytest.raises(ValueError, match=message):
        convert(state, 'ic-conv')


@pytest.mark.parametrize(
    ('key', 'name'),
    [
        ('proposal_generator.rpn_head.conv.weight', 'detectron2'),
        ('roi_heads.box_predictor.cls_score.weight', 'torchvision'),
        ('neck.c3_lateral.weight', 'EOD, but no Faster, Mask or Cascade R-CNN'),
        ('bbox_head.fcos_reg.weight', 'mmdet, but neither two-stage nor RetinaNet'),
    ],
)
def test_another_framework_is_named(key, name):
    state = {k: v for k, v in small().items() if k.startswith('backbone.')} | {key: torch.zeros(2, 2)}
    with pytest.raises(UnmatchedKeysError, match=rf"'{name} \(its backbone alone is converted\)'"):
        convert(state, 'ic-conv')
