"""Trainings that earlier versions began go on as they were; later ones name their defaults."""

import pytest
from mmengine.config import Config

from icconv_mm.app.runs.backbone_defaults import keep_former_defaults, write_defaults
from icconv_mm.app.runs.begin import load_config
from icconv_mm.config_tree import walk
from icconv_mm.files import configs_folder

OWN = dict(annotations=dict(type='icconv_mm.CopyAnnotationsHook'), checkpoint=dict(type='CheckpointHook'))
COPY = dict(checkpoint=dict(type='icconv_mm.AtomicCheckpointHook'))
FORMER = dict(norm_eval=False, stem_channels=24)


def config(kind='icconv_mm.ICResNet', scope='mmdet', hooks=None, backbone=None, **top):
    backbone = dict(type=kind, depth=18, base_channels=24, pattern='dense', **(backbone or {}))
    cfg = dict(default_scope=scope, model=dict(type='RetinaNet', backbone=backbone), **top)
    return Config(cfg | ({'default_hooks': hooks} if hooks else {}))


def new(cfg):
    keys = ('type', 'depth', 'base_channels', 'pattern')
    return {key: value for key, value in cfg.model.backbone.items() if key not in keys}


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'mmengine'])
@pytest.mark.parametrize('given', [dict(hooks=OWN), dict(hooks=COPY, launcher='none')], ids=['own images', 'copy'])
def test_what_an_earlier_version_wrote(given, scope):
    cfg = config(scope=scope, **given)
    keep_former_defaults(tuple(walk(cfg)))
    assert new(cfg) == FORMER
    cfg = config('icconv_mm.ICResNeXt', scope, backbone=dict(norm_cfg=dict(type='BN')), **given)
    keep_former_defaults(tuple(walk(cfg)))
    assert new(cfg) == FORMER | dict(groups=32, norm_cfg=dict(type='BN'))


@pytest.mark.parametrize(
    'given',
    [
        dict(),
        dict(launcher='none'),  # of another tool
        dict(hooks=COPY),  # by hand
        dict(hooks=COPY, launcher='none', kind='mmdet.ResNet'),
        dict(hooks=OWN, kind='icconv_mm.ICBackbone'),
        dict(hooks=OWN, kind='ResNet'),
    ],
    ids=str,
)
def test_what_others_wrote_stays(given):
    cfg = config(**given)
    keep_former_defaults(tuple(walk(cfg)))
    assert new(cfg) == {}


def test_what_is_written_stays():
    cfg = config(hooks=OWN, launcher='none', backbone=dict(norm_eval=True))
    keep_former_defaults(tuple(walk(cfg)))
    assert new(cfg) == dict(norm_eval=True)


@pytest.mark.parametrize(
    ('scope', 'expected'),
    [('mmdet', dict(norm_eval=True, stem_channels=24)), ('mmseg', dict(norm_eval=False, stem_channels=64))],
)
def test_a_training_names_its_defaults(scope, expected):
    cfg = config(scope=scope)
    write_defaults(tuple(walk(cfg)))
    assert new(cfg) == expected
    copy = Config(dict(cfg._cfg_dict, default_hooks=COPY, launcher='none'))
    keep_former_defaults(tuple(walk(copy)))
    assert new(copy) == expected


def test_a_file_is_read_so(tmp_path):
    (tmp_path / 'run.py').write_text(config(hooks=COPY, launcher='none').pretty_text)
    assert new(load_config(tmp_path / 'run.py')) == FORMER


@pytest.mark.parametrize('task', ['detection', 'instance', 'semantic', 'pose', 'classification', 'all'])
def test_a_file_for_own_images_is_read_so(tmp_path, task):
    backbone = dict(type='icconv_mm.ICResNet', depth=18, base_channels=24, pattern='dense')
    base = configs_folder() / '_base_' / 'own_data' / f'{task}.py'
    (tmp_path / 'own.py').write_text(f'_base_ = {str(base)!r}\nmodel = dict(backbone={backbone})\n')
    assert new(load_config(tmp_path / 'own.py')) == FORMER
