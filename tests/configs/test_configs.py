"""Configs build, learn one step and predict; recipes are upstream's."""

import re
import shutil
from collections import Counter

import pytest
import torch
from config_utils import CONFIGS, learn_one_step_and_predict, read_config, upstream_of
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

from icconv_mm.compat import library_default

BACKBONES = sorted((CONFIGS / '_base_' / 'backbones').glob('*.py'))
TASK_CONFIGS = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.relative_to(CONFIGS).parts)
# One config of every task in the fast tests, the others in the slow ones.
FAST = {
    'mask-rcnn_ic-r18_fpn_miniature',
    'fpn_ic-r18_miniature',
    'pyconvsegnet_pyconv-r18_miniature',
    'ic-resnet18_8xb32_in1k',
    'ae_ic-r18_miniature',
    'multitask_ic-r18_fpn_miniature',
    'retinanet_ic-r18_fpn-sepc_miniature',
    'mask-rcnn_ic-r18_fpt_miniature',
    'ufp-fpt_ic-r18_miniature',
}


def twin_of_50_layers(path):
    """The config whose network has 50 layers: the channels of 101 and 152 layers are the same."""
    return path.with_stem(re.sub(r'((?:^|[-_])r|resnet)(101|152)', r'\g<1>50', path.stem))


BUILT = [path for path in TASK_CONFIGS if twin_of_50_layers(path) == path or not twin_of_50_layers(path).is_file()]


def parameters_of(paths, fast=None):
    """Parameters of a test: one per config, those that are not ``fast`` marked slow."""
    slow = [[] if fast is None or path.stem in fast else [pytest.mark.slow] for path in paths]
    names = [str(path.relative_to(CONFIGS).with_suffix('')) for path in paths]
    return [pytest.param(path, id=name, marks=marks) for path, name, marks in zip(paths, names, slow)]


@pytest.fixture(scope='module')
def published(request, tmp_path_factory):
    """The cache folder with the published patterns, or None where there are none at hand."""
    try:
        patterns = request.getfixturevalue('published_patterns')
    except pytest.skip.Exception:
        return None
    cache = tmp_path_factory.mktemp('cache')
    shutil.copytree(patterns, cache / 'patterns')
    return cache


@pytest.fixture
def load(published, monkeypatch):
    """Reads a config; where a published pattern is not at hand, an analytic one takes its place."""

    def load(path):
        cfg = read_config(path)
        pytest.importorskip(cfg.default_scope)
        if 'pose' in cfg.model.get('tasks', ()):
            pytest.importorskip('mmpose')
        init_default_scope(cfg.default_scope)
        if published is None and '/' in str(cfg.model.backbone.get('pattern')):
            cfg.model.backbone.pattern = 'geometric_d4'
        cfg.model.backbone.init_cfg = None
        return cfg

    if published is not None:
        monkeypatch.setenv('ICCONV_MM_CACHE', str(published))
    return load


def test_recipes_name_what_libraries_differ_in():
    """Norms that train and widths are those of the published figures, whatever the library's own default is."""
    evidence = CONFIGS.parent / 'tools/dev/icconv_workshop/evidence/configs'
    read = 0
    for path in [*TASK_CONFIGS, *sorted(evidence.glob('*.py'))]:
        cfg = read_config(path)
        backbone = cfg.get('model', {}).get('backbone', {})
        if str(backbone.get('type')).startswith('icconv_mm.'):
            read += 1
            width = backbone.get('base_channels', 64)
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                stem = backbone.get('stem_channels', library_default('stem_channels', width))
                norm_eval = library_default('norm_eval', False)
            has_batch_norm = backbone.get('norm_cfg', {}).get('type') != 'GN'
            assert stem == width and ('norm_eval' in backbone or not (norm_eval and has_batch_norm)), path
    assert read > 100


@pytest.mark.parametrize('path', parameters_of(BUILT, FAST))
def test_config_builds_learns_one_step_and_predicts(path, load):
    # with FPT, coarse levels may meet the loss only through transformers that start at zero: after one step
    cfg = load(path)
    model, before, loss = learn_one_step_and_predict(cfg, warm_up='fpt' in path.stem)
    last = len(model.backbone.out_channels)  # stages
    name = f'backbone.layer{last}.0.conv2.weight'
    weight = model.get_parameter(name)
    assert torch.isfinite(loss)
    unread = [
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    ]
    assert cfg.get('find_unused_parameters') or unread == []  # a distributed training waits for every gradient
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0
    assert not torch.equal(weight, before[name])


@pytest.mark.parametrize('path', parameters_of(TASK_CONFIGS))
def test_config_names_its_scope_and_imports_the_package(path):
    cfg = read_config(path)
    assert cfg.default_scope in ('mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'mmengine')
    assert (cfg.default_scope == 'mmengine') == ('tasks' in cfg.model)
    assert 'icconv_mm' in cfg.custom_imports.imports
    assert cfg.model.backbone.type.startswith('icconv_mm.')
    assert {'train_dataloader', 'val_dataloader', 'test_dataloader', 'test_evaluator', 'optim_wrapper'} <= set(cfg)


def test_basenames_are_unique():
    """mim finds a config by its basename."""
    counts = Counter(path.name for path in TASK_CONFIGS)
    assert [name for name, count in counts.items() if count > 1] == []


def test_recipes_start_from_the_weights_of_their_backbone():
    """Written once, beside the backbone; classifiers and the miniature recipes start from nothing."""
    for path in TASK_CONFIGS:
        assert 'Pretrained' not in path.read_text(), path.stem
        cfg = read_config(path)
        workspace = path.parent.name == 'classification' or 'miniature' in path.stem
        assert cfg.model.backbone.get('init_cfg') == (None if workspace else cfg.weights), path.stem
    for path in BACKBONES:
        weights = Config.fromfile(path).weights
        if weights and weights.checkpoint.startswith('checkpoints/'):
            name = path.stem if path.stem.endswith('_detectron') else f'{path.stem}_imagenet'
            assert weights == dict(type='Pretrained', checkpoint=f'checkpoints/{name}.pth', prefix='backbone.')


# Those of SEPC have a neck and a head of their own, and FSAF their coder: test_sepc_configs.py. Those of FPT, and of
# IC-Conv where its authors trained them, are of their own: test_fpt_configs.py, test_authors.py.
RECIPES = [path for path in TASK_CONFIGS if upstream_of(path) and not re.search('-sepc|-pconv|fpt|fsaf', path.stem)]


@pytest.fixture(scope='module')
def upstream_folder(tmp_path_factory):
    return tmp_path_factory.mktemp('upstream')


# What else a backbone with other channels, or weights that know other pixels, change.
ADAPTED = {
    'rtmdet': ('model.data_preprocessor', 'model.neck', 'norm_cfg'),
    'segformer-head': ('model.decode_head.in_channels',),
    'rtmo': ('model.data_preprocessor', 'model.neck.in_channels'),
    'dekr': ('model.head.in_channels',),
}


def take(cfg, path):
    """Remove a value from a nested dict and return it, None where there is none."""
    *parents, last = path.split('.')
    for key in parents:
        cfg = cfg[key]
    return cfg.pop(last, None)


@pytest.mark.parametrize('path', parameters_of(RECIPES))
def test_recipe_is_upstreams_but_for_the_backbone(path, upstream_folder):
    alone = upstream_folder / f'{upstream_of(path).replace("/", "_").replace(":", "_")}'
    alone.write_text(f'_base_ = [{upstream_of(path)!r}]\n')
    upstream, ours = read_config(alone).to_dict(), read_config(path).to_dict()
    for extra in ('backbone', 'weights', 'pretrained', 'fine_tuned', 'custom_imports'):
        ours.pop(extra, None)
    for cfg in (ours, upstream):
        del cfg['model']['backbone']
        cfg['model'].pop('pretrained', None)
    for adapted in ADAPTED.get(path.stem.split('_')[0], ()):
        assert take(ours, adapted) != take(upstream, adapted), adapted
    assert ours == upstream


def backbone_file(path):
    """The file of ``_base_/backbones`` that a recipe inherits from, directly or through others."""
    for base in Config._get_base_files(str(path)):
        if '::' not in base:
            base = (path.parent / base).resolve()
            if file := base if base in BACKBONES else backbone_file(base):
                return file
    return None


@pytest.mark.parametrize('path', parameters_of([path for path in TASK_CONFIGS if 'miniature' not in path.stem]))
def test_a_recipe_is_named_after_the_file_of_its_backbone(path):
    name = re.sub('(_gn)?_(detectron|caffe)$', '', backbone_file(path).stem).replace('_', '-')
    if path.parent.name == 'classification':
        assert path.stem.split('_')[0] == name
    else:
        name = name.replace('resnext', 'x').replace('resnet', 'r')
        assert re.fullmatch(rf'{name}(-d\d+|-dcn)?', path.stem.split('_')[1])
