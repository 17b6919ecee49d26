"""A converted detection file loads strictly into the mmdet 3 model of the config that belongs to it."""

import pytest
import torch
from layouts import bottom_up_pose, classifier, detector, eod
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from icconv_mm.checkpoints import convert, convert_file

CONFIGS = {
    'Faster': ('detection/faster-rcnn_ic-r50-k9_fpn_1x_coco.py', False, False),
    'Mask': ('instance_segmentation/mask-rcnn_ic-r50-k9-seg_fpn_1x_coco.py', False, True),
    'Cascade': ('detection/cascade-rcnn_ic-r50-k9_fpn_1x_coco.py', True, False),
    'Cascade Mask': ('instance_segmentation/cascade-mask-rcnn_ic-r50-k9-seg_fpn_1x_coco.py', True, True),
}


def build(repo, config):
    cfg = Config.fromfile(repo / 'configs' / config)
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pattern = 'dense'  # keys and shapes are those of every pattern
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):  # no memory and no initialisation: loading assigns the tensors of the file
        return MODELS.build(cfg.model)


CASES = [
    pytest.param(name, version, marks=() if (name, version) == ('Mask', 1) else pytest.mark.slow)
    for name in CONFIGS
    for version in (1, 2)
]


@pytest.mark.parametrize(('name', 'version'), CASES)
def test_detector_loads_and_keeps_its_classes(repo, name, version):
    config, cascade, mask = CONFIGS[name]
    old = detector(version, cascade, mask, depth=50)
    model = build(repo, config)
    model.load_state_dict(convert(old, 'ic-conv'), strict=True, assign=True)
    prefix = 'roi_head.' if version == 2 else ''
    heads = model.roi_head.bbox_head if cascade else [model.roi_head.bbox_head]
    for head, stage in zip(heads, ('.0', '.1', '.2') if cascade else ('',)):
        rows = old[f'{prefix}bbox_head{stage}.fc_cls.weight']
        assert torch.equal(head.fc_cls.weight, rows if version == 2 else torch.cat([rows[1:], rows[:1]]))
        assert len(rows) == head.num_classes + 1 == 81
    if mask:
        head, stage = (model.roi_head.mask_head[2], '.2') if cascade else (model.roi_head.mask_head, '')
        rows = old[f'{prefix}mask_head{stage}.conv_logits.bias']
        assert torch.equal(head.conv_logits.bias, rows if version == 2 else rows[1:])


@pytest.mark.parametrize('name', [pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS])
def test_detector_of_eod_loads(repo, name):
    config, cascade, mask = CONFIGS[name]
    old = eod(cascade, mask, depth=50)
    model = build(repo, config)
    model.load_state_dict(convert(old, 'ic-conv'), strict=True, assign=True)
    heads = model.roi_head.bbox_head if cascade else [model.roi_head.bbox_head]
    assert {head.num_classes for head in heads} == {80}


def test_what_does_not_fit_the_config_is_not_written(repo, tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({'epoch': 14, 'model': eod(channels=64, hidden=256, classes=5)}, 'ckpt_e14.pth')
    config = 'detection/faster-rcnn_ic-r18_fpn_miniature.py'
    with pytest.raises(SystemExit) as end:
        tool.main(['ckpt_e14.pth', 'out.pth', '--config', str(repo / 'configs' / config)])
    assert 'pattern geometric_d4 has runs of' in str(end.value)
    assert str(end.value).endswith('Nothing was written.')
    with pytest.raises(ValueError, match=r'fc_cls\.weight \[7, 256\] in the model, \[6, 256\] in the checkpoint'):
        convert_file('ckpt_e14.pth', 'out.pth', 'ic-conv', model=build(repo, config))
    assert not (tmp_path / 'out.pth').exists()


def test_classifier_loads_into_the_pretraining_config(repo):
    model = build(repo, 'classification/ic-resnet50-k9_8xb32_in1k.py')
    model.load_state_dict(convert(classifier(50, classes=1000), 'ic-conv'), strict=True, assign=True)


def test_pose_estimator_loads_into_its_config(repo):
    old = bottom_up_pose(50)
    model = build(repo, 'pose/ae_ic-r50-k13_8xb16-300e_coco-640x640.py')
    model.load_state_dict(convert(old, 'ic-conv'), strict=True, assign=True)
    assert torch.equal(model.head.final_layer.bias, old['keypoint_head.final_layer.bias'])


def test_classifier_initializes_the_backbone_of_a_detector(repo, tmp_path):
    """What ``init_cfg`` of the recipes does with a converted ImageNet file."""
    old = classifier(18)
    torch.save({'state_dict': old}, tmp_path / 'ckpt.pth.tar')
    convert_file(tmp_path / 'ckpt.pth.tar', tmp_path / 'ic_resnet18_imagenet.pth', 'ic-conv')
    backbone = MODELS.build(
        {
            'type': 'icconv_mm.ICResNet',
            'depth': 18,
            'pattern': 'geometric_d4',
            'init_cfg': {
                'type': 'Pretrained',
                'checkpoint': str(tmp_path / 'ic_resnet18_imagenet.pth'),
                'prefix': 'backbone.',
            },
        }
    )
    backbone.init_weights()
    assert torch.equal(backbone.layer4[1].bn2.running_mean, old['layer4.1.bn2.running_mean'])
    parts = [old[f'layer3.0.conv1.conv_list.{index}.weight'] for index in range(12)]
    assert torch.equal(backbone.layer3[0].conv1.weight, torch.cat(parts))
