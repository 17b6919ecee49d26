"""Heads of mmdet that ask for a ``view`` of their maps, which channels_last maps do not have."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from deployed_checks import trained
from mmengine.config import Config
from mmengine.registry import DefaultScope

import icconv_mm
from icconv_mm.registry import MODELS

structures = pytest.importorskip('mmdet.structures')

CONFIG = Path(structures.__file__).parents[1] / '.mim/configs/centernet/centernet_r18_8xb16-crop512-140e_coco.py'
IMAGE = torch.randn(1, 3, 128, 128)


def centernet(**backbone) -> torch.nn.Module:
    cfg = Config.fromfile(CONFIG).model
    cfg.backbone.pop('init_cfg')
    cfg.backbone.update(backbone)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return trained(MODELS.build(cfg))


@torch.no_grad()
def detections(model: torch.nn.Module) -> torch.Tensor:
    size = IMAGE.shape[2:]
    names = ('img_shape', 'ori_shape', 'batch_input_shape', 'pad_shape')
    about = dict.fromkeys(names, size) | {'scale_factor': (1.0, 1.0), 'border': (0, 0, 0, 0)}
    return model.predict(IMAGE, [structures.DetDataSample(metainfo=about)])[0].pred_instances.scores


@pytest.mark.parametrize('memory_format', ['auto', 'preserve', 'channels_last'])
def test_by_one_line(memory_format):
    model = centernet(type='icconv_mm.ICResNet', pattern='geometric_d2', memory_format=memory_format)
    expected = deepcopy(model)
    icconv_mm.layers.set_memory_format(expected.backbone, 'preserve')
    torch.testing.assert_close(detections(model), detections(expected), rtol=1e-4, atol=1e-5)


def test_deployed():
    model = centernet()
    torch.testing.assert_close(detections(icconv_mm.deploy(model)), detections(model), rtol=1e-4, atol=1e-5)
