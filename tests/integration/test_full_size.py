"""The detector of the paper at the size of the paper."""

import pytest
import torch
from mmengine.config import Config
from mmengine.structures import InstanceData

from icconv_mm.layers import ICConv2d

HEIGHT, WIDTH = 800, 1333


@pytest.mark.slow
def test_mask_rcnn_runs_forward_and_backward(repo, published_patterns, tmp_path, monkeypatch):
    """Mask R-CNN with IC-ResNet-50 and the published pattern on one image of 800x1333, on the CPU."""
    pytest.importorskip('mmdet')
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmdet.utils import register_all_modules

    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    (tmp_path / 'patterns').symlink_to(published_patterns)
    register_all_modules()
    cfg = Config.fromfile(repo / 'configs/instance_segmentation/mask-rcnn_ic-r50-k9-seg_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).train()
    assert sum(len(m.pattern) for m in model.backbone.modules() if isinstance(m, ICConv2d)) > 200

    boxes = torch.tensor([[100.0, 150.0, 400.0, 500.0], [600.0, 50.0, 1200.0, 700.0]])
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[top:bottom, left:right] = 1
    shape = {'img_shape': (HEIGHT, WIDTH), 'ori_shape': (HEIGHT, WIDTH), 'scale_factor': (1.0, 1.0)}
    sample = DetDataSample(metainfo=shape)
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 2]), masks=BitmapMasks(masks.numpy(), HEIGHT, WIDTH)
    )
    batch = {'inputs': [torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)], 'data_samples': [sample]}
    batch = model.data_preprocessor(batch, training=True)
    loss, values = model.parse_losses(model(**batch, mode='loss'))
    assert {'loss_rpn_cls', 'loss_bbox', 'loss_mask'} <= set(values)
    loss.backward()
    learning = {name: p.grad for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert any(name.startswith('layer2') for name in learning)
    for name, grad in learning.items():
        assert grad is not None and grad.isfinite().all() and grad.any(), name
