"""Every task on every PyConv backbone: the miniature configs with another backbone file build and take one step."""

import pytest
import torch
from config_utils import CONFIGS, learn_one_step_and_predict, read_config
from mmengine.config import Config
from mmengine.registry import init_default_scope

from icconv_tools.demo.configs import use_backbone

TASKS = {
    'detection': 'detection/faster-rcnn_ic-r18_fpn_miniature.py',
    'instance': 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature.py',
    'semantic': 'semantic_segmentation/fpn_ic-r18_miniature.py',
    'pose': 'pose/ae_ic-r18_miniature.py',
}
SEGMENTER = 'semantic_segmentation/pyconvsegnet_pyconv-r18_miniature.py'
BACKBONES = [f'pyconv_resnet{depth}' for depth in (18, 34, 50, 101, 152)]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check(config: str, backbone: str):
    cfg = read_config(CONFIGS / config)
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    use_backbone(cfg, Config.fromfile(CONFIGS / f'_base_/backbones/{backbone}.py').backbone.to_dict())
    model, before, loss = learn_one_step_and_predict(cfg)
    assert type(model.backbone).__name__ == cfg.backbone.type.split('.')[1]
    assert torch.isfinite(loss)
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    for stage in range(1, len(model.backbone.out_channels) + 1):
        assert any(name.startswith(f'backbone.layer{stage}.') for name in changed), stage
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize(
    'backbone',
    [name if name == 'pyconv_resnet18' else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES],
)
def test_task_on_backbone(task, backbone):
    check(TASKS[task], backbone)


@pytest.mark.parametrize('backbone', ['resnet18', 'resnet34'])
def test_the_dense_network_of_the_same_depth(backbone):
    check(TASKS['detection'], backbone)


@pytest.mark.slow
@pytest.mark.parametrize('backbone', ['ic_resnet18', 'resnet50', 'pyconv_resnet18_two', 'pyconv_hgresnet50'])
def test_pyconvsegnet_on_any_backbone(backbone):
    check(SEGMENTER, backbone)
