"""``--memory-format`` of the tools, for any backbone."""

import argparse

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, DefaultScope

from icconv_mm.apis import config_arguments
from icconv_mm.apis.training import build_runner
from icconv_mm.errors import InputError
from icconv_mm.layers import set_memory_format

pytest.importorskip('mmdet.models')


def runner_of(model, tmp_path, **settings):
    cfg = Config(dict(model=model, work_dir=str(tmp_path), default_scope='mmdet', experiment_name=tmp_path.name))
    with DefaultScope.overwrite_default_scope('mmdet'):
        return build_runner(cfg, **settings)


def test_the_option_offers_formats_that_there_are():
    parser = argparse.ArgumentParser()
    config_arguments.add_memory_format(parser)
    (option,) = (action for action in parser._actions if action.dest == 'memory_format')
    assert {'channels_last', 'preserve'} < set(option.choices)
    for choice in option.choices:
        set_memory_format(torch.nn.Conv2d(3, 8, 3), choice)


@pytest.mark.parametrize(('memory_format', 'expected'), [('channels_last', True), ('preserve', False)])
def test_maps_of_any_backbone_and_what_the_heads_make_of_them(memory_format, expected, tmp_path):
    model = get_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py').model
    model.backbone |= dict(depth=18, init_cfg=None)
    model.neck.in_channels = [64, 128, 256, 512]
    model = runner_of(model, tmp_path, memory_format=memory_format).model.eval()
    levels = model.extract_feat(torch.randn(1, 3, 64, 96))
    assert levels[0].is_contiguous(memory_format=torch.channels_last) is expected
    rois = torch.tensor([[0, 5.0, 5, 50, 40], [0, 20, 30, 60, 62]])
    extract = model.roi_head.bbox_roi_extractor
    torch.testing.assert_close(extract(levels[:4], rois), extract([x.contiguous() for x in levels[:4]], rois))


def test_a_model_without_backbone_is_refused(tmp_path):
    @MODELS.register_module(name='Headless', force=True)
    class Headless(BaseModel):
        def forward(self, inputs, data_samples=None, mode='tensor'):
            return inputs

    with pytest.raises(InputError, match='memory_format: Headless has no backbone'):
        runner_of(dict(type='mmengine.Headless'), tmp_path, memory_format='auto')
