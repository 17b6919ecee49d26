import pytest
from mmengine.config import Config

from icconv_tools.demo.configs import backbone_file, prepare_config, use_backbone
from icconv_tools.demo.tasks import MULTITASK, SEPARATE


@pytest.mark.parametrize(
    ('task', 'backbone'), zip(SEPARATE, ['ic_resnet18', 'ic_resnet50_k9', 'pyconv_hgresnet50', 'ic_resnet18'])
)
def test_prepared_config(task, backbone, repo, tmp_path):
    """Backbone, data folder and seed are exchanged, everywhere, and nothing else."""
    data = tmp_path / 'elsewhere'
    path = prepare_config(task, tmp_path / task.name, backbone=backbone_file(backbone), data=data, seed=7)
    cfg = Config.fromfile(path, import_custom_modules=False)
    expected = Config.fromfile(repo / f'configs/_base_/backbones/{backbone}.py').backbone
    assert cfg.backbone == expected and dict(cfg.model.backbone) == cfg.model.backbone | expected
    channels = [64 * 2**i * (4 if '50' in backbone else 1) for i in range(4)]
    assert cfg.model.neck.in_channels == channels[: len(cfg.model.backbone.get('out_indices', channels))]
    assert 'data/miniature' not in cfg.pretty_text
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == f'{tmp_path}/elsewhere/'
    assert cfg.randomness.seed == 7
    original = Config.fromfile(repo / 'configs' / task.config, import_custom_modules=False)
    assert cfg.optim_wrapper == original.optim_wrapper and cfg.param_scheduler == original.param_scheduler
    if backbone == 'ic_resnet18':
        assert cfg.model == original.model


@pytest.mark.parametrize(('backbone', 'growth'), [('pyconv_resnet18', 1), ('ic_resnet50_k9', 4)])
def test_prepared_config_of_one_network(backbone, growth, tmp_path):
    """The other backbone is as narrow as the recipe's own, and the neck fits it."""
    options = {'backbone': backbone_file(backbone), 'data': tmp_path, 'seed': 0}
    cfg = Config.fromfile(prepare_config(MULTITASK, tmp_path / 'joint', **options), import_custom_modules=False)
    stages = dict(num_stages=3, out_indices=(0, 1, 2))
    assert cfg.model.backbone == cfg.backbone | {'base_channels': 48, 'stem_channels': 48} | stages
    assert cfg.model.neck.in_channels == [growth * width for width in (48, 96, 192)]


def test_fine_tuning(tmp_path):
    """A task that starts with a trained backbone may be shorter; its schedule keeps its shape."""
    task = next(task for task in SEPARATE if task.fine_tuning)
    backbone = backbone_file('ic_resnet18')
    common = {'backbone': backbone, 'data': tmp_path, 'seed': 0}
    workspace, tuned = (
        Config.fromfile(prepare_config(task, tmp_path / name, **common, **start), import_custom_modules=False)
        for name, start in (('workspace', {}), ('tuned', {'start': tmp_path / 'detector.pth'}))
    )
    assert 'init_cfg' not in workspace.model.backbone
    assert tuned.model.backbone.init_cfg.checkpoint == str(tmp_path / 'detector.pth')
    assert tuned.train_cfg.max_iters == task.fine_tuning < workspace.train_cfg.max_iters
    assert tuned.default_hooks.checkpoint.interval == tuned.param_scheduler[-1].end == task.fine_tuning
    factor = task.fine_tuning / workspace.train_cfg.max_iters
    for short, whole in zip(tuned.param_scheduler, workspace.param_scheduler, strict=True):
        assert short.end == pytest.approx(factor * whole.end, abs=0.5) and short.type == whole.type


def test_backbone_of_a_segmentor_without_neck():
    """Every head follows the stage that it reads."""
    small = {'type': 'icconv_mm.PyConvResNet', 'depth': 18}
    heads = {'decode_head': {'in_channels': 512, 'in_index': 3}, 'auxiliary_head': {'in_channels': 256, 'in_index': 2}}
    cfg = Config({'backbone': small, 'model': {'backbone': small | {'output_stride': 8}, **heads}})
    use_backbone(cfg, {'type': 'icconv_mm.PyConvHGResNet', 'depth': 50})
    assert cfg.model.backbone == {'type': 'icconv_mm.PyConvHGResNet', 'depth': 50, 'output_stride': 8}
    assert (cfg.model.decode_head.in_channels, cfg.model.auxiliary_head.in_channels) == (2048, 1024)
