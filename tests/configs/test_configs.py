"""Every config builds, learns one step and predicts; no backbone is written twice; recipes are upstream's."""

import ast
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from config_utils import CONFIGS, is_former_name, learn_one_step_and_predict, read_config, upstream_of
from mmengine.config import Config
from mmengine.registry import init_default_scope

import icconv_mm

BACKBONES = sorted((CONFIGS / '_base_' / 'backbones').glob('*.py'))
TASK_CONFIGS = sorted(
    path
    for path in CONFIGS.rglob('*.py')
    if '_base_' not in path.relative_to(CONFIGS).parts and not is_former_name(path)
)
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


def each(paths, fast=None):
    """Parameters of a test: one per config, those that are not ``fast`` marked slow."""
    slow = [[] if fast is None or path.stem in fast else [pytest.mark.slow] for path in paths]
    names = [str(path.relative_to(CONFIGS).with_suffix('')) for path in paths]
    return [pytest.param(path, id=name, marks=marks) for path, name, marks in zip(paths, names, slow)]


@pytest.fixture(autouse=True)
def one_thread():
    """On tiny inputs, threads cost more than they save, and much more where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.mark.parametrize('path', each(TASK_CONFIGS, FAST))
def test_config_builds_learns_one_step_and_predicts(path, load):
    # with FPT, coarse levels may meet the loss only through transformers that start at zero: after one step
    model, before, loss = learn_one_step_and_predict(load(path), warm_up='fpt' in path.stem)
    last = len(model.backbone.out_channels)  # stages
    name = f'backbone.layer{last}.0.conv2.weight'
    weight = model.get_parameter(name)
    assert torch.isfinite(loss)
    assert weight.grad.isfinite().all() and weight.grad.abs().max() > 0
    assert not torch.equal(weight, before[name])


@pytest.mark.parametrize('path', each(TASK_CONFIGS))
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


def written_backbones(path):
    """Lines of a config that spell out a backbone instead of taking one from ``_base_/backbones``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.keyword, ast.Assign)):
            name = node.arg if isinstance(node, ast.keyword) else getattr(node.targets[0], 'id', None)
            if name != 'backbone':
                continue
            if isinstance(node.value, ast.Call):
                keys = {keyword.arg for keyword in node.value.keywords}
            elif isinstance(node.value, ast.Dict):
                keys = {getattr(key, 'value', None) for key in node.value.keys}
            else:
                continue
            if keys & {'type', 'depth', 'groups', 'base_width'}:
                yield node.lineno


def frozen(cfg):
    """What fine-tuning does not train: stem and first stage, and the statistics of batch norms."""
    group_norm = cfg.backbone.get('norm_cfg', {}).get('type') == 'GN'
    return dict(frozen_stages=1) if group_norm else dict(frozen_stages=1, norm_eval=True)


def test_a_backbone_is_written_once():
    elsewhere = [path for path in CONFIGS.rglob('*.py') if path not in BACKBONES]
    found = [f'{path.relative_to(CONFIGS)}:{line}' for path in elsewhere for line in written_backbones(path)]
    assert found == []
    dicts = {}
    for path in BACKBONES:
        cfg = Config.fromfile(path)
        with_weights = {'pretrained', 'fine_tuned'} if cfg.weights else set()  # nothing else to start from
        assert set(cfg) - {'pixels'} == {'backbone', 'weights', *with_weights}, path.name
        if with_weights:
            assert cfg.pretrained == dict(cfg.backbone, init_cfg=cfg.weights), path.name
            assert cfg.fine_tuned == dict(cfg.pretrained, **frozen(cfg)), path.name
        assert dicts.setdefault(str(cfg.backbone), path.name) == path.name


def test_a_second_copy_of_a_backbone_would_be_noticed(tmp_path):
    copies = [
        "model = dict(backbone=dict(_delete_=True, type='icconv_mm.ICResNet', depth=50))",
        "model = dict(backbone={'type': 'ResNet'})",
        "backbone = dict(type='ResNet')",
        'model = dict(backbone=dict(depth=101, **_base_.backbone))',
    ]
    for text in copies:
        (tmp_path / 'copy.py').write_text(text)
        assert list(written_backbones(tmp_path / 'copy.py')) == [1], text
    (tmp_path / 'good.py').write_text(
        'model = dict(backbone=dict(_delete_=True, **_base_.fine_tuned, out_indices=(3,)))'
    )
    assert list(written_backbones(tmp_path / 'good.py')) == []


def test_recipes_start_from_the_weights_of_their_backbone():
    """Written once, beside the backbone; classifiers and the miniature recipes start from nothing."""
    for path in TASK_CONFIGS:
        assert 'Pretrained' not in path.read_text(), path.stem
        cfg = read_config(path)
        scratch = path.parent.name == 'classification' or 'miniature' in path.stem
        assert cfg.model.backbone.get('init_cfg') == (None if scratch else cfg.weights), path.stem
    for path in BACKBONES:
        weights = Config.fromfile(path).weights
        if weights and weights.checkpoint.startswith('checkpoints/'):
            name = path.stem if path.stem.endswith('_detectron') else f'{path.stem}_imagenet'
            assert weights == dict(type='Pretrained', checkpoint=f'checkpoints/{name}.pth', prefix='backbone.')


# Those of SEPC have a neck and a head of their own: test_sepc_configs.py; those of FPT have another neck and other
# scales as well: test_fpt_configs.py.
RECIPES = [path for path in TASK_CONFIGS if upstream_of(path) and not re.search('-sepc|-pconv|fpt', path.stem)]


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


@pytest.mark.parametrize('path', each(RECIPES))
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


# The depth in a name of ours or of upstream's: r101, x101-32x4d, resnet101, resnext101-32x4d.
DEPTH = re.compile(r'(?<![a-z0-9])(?:hg)?(?:r|x|resnet|resnext)(\d+)')


FORMER_NAMES = sorted(path for path in CONFIGS.rglob('*.py') if is_former_name(path))
MAJOR, MINOR, *_ = icconv_mm.__version__.split('.')


@pytest.mark.parametrize('path', each(FORMER_NAMES))
def test_a_former_name_warns_and_is_the_config(path):
    (now,) = Config._get_base_files(str(path))
    when = f'CHANGELOG.md; version {MAJOR}.{int(MINOR) + 1}.0 is without this name'
    message = f'{path.name} will be deprecated .* use {Path(now).name} instead.*{when}'
    with pytest.warns(DeprecationWarning, match=message):
        former = Config.fromfile(path, import_custom_modules=False)
    assert former.to_dict() == read_config(path.parent / now).to_dict()


def test_recipes_inherit_the_config_of_their_depth():
    """Where upstream's has a ResNet."""
    named = {path.stem: DEPTH.search(Path(upstream_of(path)).stem) for path in RECIPES}
    assert sum(found is not None for found in named.values()) > 30
    wrong = {name: found[1] for name, found in named.items() if found and found[1] != DEPTH.search(name)[1]}
    assert wrong == {}


def test_names_of_the_miniature_set_keep_their_rule():
    names = [path.stem for path in TASK_CONFIGS if 'miniature' in path.stem]
    rule = re.compile(r'[a-z-]+_(ic|pyconv)-r18(-supernet)?(_fpn|_fpn-sepc|_fpt)?_miniature')
    assert names and [name for name in names if not rule.fullmatch(name)] == []


def test_the_readme_shows_a_recipe_as_it_is():
    text = (CONFIGS / 'README.md').read_text()
    (block,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
    assert block == (CONFIGS / 'detection/faster-rcnn_ic-r50-k9_fpn_1x_coco.py').read_text()
    folders = {path.name for path in (*CONFIGS.glob('*'), *CONFIGS.glob('_base_/*')) if path.is_dir()} - {'_base_'}
    assert {name for name in folders if f'`{name}`' not in text and f'`_base_/{name}`' not in text} == set()


# folder of _base_ -> what each of its files defines, and no file of another folder
DEFINED = {
    'backbones': {'backbone'},
    'necks': {'neck'},
    'models': {'model'},
    'datasets': {'train_dataloader', 'val_dataloader', 'test_dataloader'},
    'schedules': {'optim_wrapper'},
    'pipelines': set(),
    'values': set(),
}


@pytest.mark.parametrize('folder', DEFINED)
def test_a_file_of_a_base_folder_defines_what_its_folder_says(folder):
    every = set().union(*DEFINED.values())
    found = {path.stem: every & set(read_config(path)) for path in CONFIGS.glob(f'_base_/{folder}/*.py')}
    assert found and [name for name, defined in found.items() if defined != DEFINED[folder]] == []


def test_every_base_folder_has_its_rule():
    folders = {path.name for path in CONFIGS.glob('_base_/*') if path.is_dir()}
    assert folders == {*DEFINED, 'recipes'}  # recipes: what several recipes share, of any kind


def backbone_file(path):
    """The file of ``_base_/backbones`` that a recipe inherits from, directly or through others."""
    for base in Config._get_base_files(str(path)):
        if '::' not in base:
            base = (path.parent / base).resolve()
            if found := base if base in BACKBONES else backbone_file(base):
                return found
    return None


@pytest.mark.parametrize('path', each([path for path in TASK_CONFIGS if 'miniature' not in path.stem]))
def test_a_recipe_is_named_after_the_file_of_its_backbone(path):
    name = re.sub('(_gn)?_detectron$', '', backbone_file(path).stem).replace('_', '-')
    if path.parent.name == 'classification':
        assert path.stem.split('_')[0] == name
    else:
        name = name.replace('resnext', 'x').replace('resnet', 'r')
        assert re.fullmatch(rf'{name}(-d\d+)?', path.stem.split('_')[1])


def test_the_readme_says_which_pattern_a_name_means():
    text = (CONFIGS / 'README.md').read_text()
    rows = re.findall(r'^\| `ic-r50-(k9.*?)` \| `(\w+/ic_\w+)` \|', text, re.MULTILINE)
    named = {f'ic_resnet50_{name.replace("-", "_")}': pattern for name, pattern in rows}
    files = {path.stem: Config.fromfile(path).backbone.pattern for path in BACKBONES if 'ic_resnet50_k9' in path.stem}
    assert named == files and len(set(named.values())) == 2


def test_every_recipe_of_the_zoo_is_there():
    names = {path.stem for path in RECIPES}
    nets = ('ic-r50-k9', 'ic-r101-k9', 'ic-x101-32x4d-k9')
    archs = ('faster-rcnn', 'mask-rcnn', 'cascade-rcnn', 'cascade-mask-rcnn')
    known = {name.replace('-seg_', '_') for name in names}
    assert {f'{arch}_{net}_fpn_1x_coco' for arch in archs for net in nets} <= known
    assert {f'retinanet_{net}_fpn_1x_coco' for net in nets[:2]} <= names
    modern = ('rtmdet', 'dino-4scale', 'mask2former', 'upernet', 'segformer-head', 'rtmo', 'dekr')
    assert {name.split('_')[0] for name in names if '_ic-r50-k' in name} >= set(modern)
    assert {name.split('_')[0] for name in names if '_pyconv-r50_' in name} >= {'upernet', 'segformer-head'}
