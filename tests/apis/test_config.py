"""Configs and options that do not exist are told at once."""

import runpy
import sys

import pytest
from mmengine.config import Config

from icconv_mm.apis.config import check_options, load_config
from icconv_mm.errors import InputError
from icconv_mm.tasks.lookup import MissingLibraryError


@pytest.fixture
def cfg():
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(
                type='FasterRCNN', backbone=dict(type='ResNet', depth=50), test_cfg=dict(rcnn=dict(max_per_img=9))
            ),
            train_cfg=dict(max_epochs=12),
            param_scheduler=[dict(type='LinearLR', begin=0)],
        )
    )


@pytest.mark.parametrize(
    'option',
    ['model.backbone.depth', 'model.backbone.frozen_stages', 'param_scheduler.0.begin', 'param_scheduler.0.by_epoch',
     'randomness.seed', 'load_from', 'resume', 'model.test_cfg.rcnn.score_thr', 'train_dataloader.batch_size'],
)  # fmt: skip
def test_options_that_may_be_given(cfg, option):
    check_options(cfg, {option: 1})


@pytest.mark.parametrize(
    'option, suggestion',
    [
        ('model.bakcbone.depth', 'backbone'),
        ('model.backbone.dept', 'depth'),
        ('trian_cfg.max_epochs', 'train_cfg'),
        ('train_cfg.max_epoch', 'max_epochs'),
        ('model.test_cfg.rcnn.max_per_image', 'max_per_img'),
        ('randomnes.seed', 'randomness'),
    ],
)
def test_misspelt_option(cfg, option, suggestion):
    with pytest.raises(InputError, match=f'^options {option}: no such key .* did you mean {suggestion!r}'):
        check_options(cfg, {option: 1})


def test_unknown_top_level_option(cfg):
    with pytest.raises(InputError, match="the config has no 'colour', and it is no argument of the runner"):
        check_options(cfg, {'colour.depth': 1})


def write(path, text):
    path.write_text(text)
    return str(path)


def test_work_dir(tmp_path):
    path = write(tmp_path / 'c.py', 'a = 1')
    assert load_config(path).work_dir == 'work_dirs/c'
    assert load_config(path, work_dir='x').work_dir == 'x'
    assert load_config(write(tmp_path / 'd.py', 'work_dir = "y"')).work_dir == 'y'


def test_options_are_merged(tmp_path):
    path = write(tmp_path / 'c.py', 'train_cfg = dict(max_iters=5)\nhooks = [dict(a=1)]')
    cfg = load_config(path, {'train_cfg.max_iters': 7, 'hooks.0.a': 2})
    assert (cfg.train_cfg.max_iters, cfg.hooks[0].a) == (7, 2)


@pytest.mark.parametrize(
    'text, message',
    [
        ('a = (', 'SyntaxError'),
        ("_base_ = './gone.py'", r'gone\.py'),
        ("_base_ = 'mmrotate::a/b.py'", 'mmrotate is not installed'),
        ("custom_imports = dict(imports=['no_such_module'], allow_failed_imports=False)", 'no_such_module'),
    ],
)
def test_unreadable_config(tmp_path, text, message):
    with pytest.raises(InputError, match=f'config .*c.py cannot be read: .*{message}'):
        load_config(write(tmp_path / 'c.py', text))


def test_missing_config():
    with pytest.raises(InputError, match=r'config: no such file: configs/nothing\.py'):
        load_config('configs/nothing.py')


@pytest.mark.parametrize('text', ["default_scope = 'mmrotate'", "model = dict(type='mmrotate.Rotated')"])
def test_task_library_that_is_not_installed(tmp_path, text):
    with pytest.raises(MissingLibraryError, match=r"c\.py needs mmrotate \(default_scope = 'mmrotate'\)"):
        load_config(write(tmp_path / 'c.py', text))


def test_install_hint_for_a_library_known_here(tmp_path, monkeypatch):
    monkeypatch.setattr('icconv_mm.versions.is_installed', lambda name: name != 'mmseg')
    with pytest.raises(MissingLibraryError, match=r'which is not installed: pip install "mmsegmentation>='):
        load_config(write(tmp_path / 'c.py', "default_scope = 'mmseg'"))


@pytest.mark.parametrize('tool', ['train', 'test', 'infer', 'browse_dataset'])
def test_arguments_of_the_tools(repo, tool, monkeypatch, capsys):
    def status(*arguments):
        monkeypatch.setattr(sys, 'argv', [tool, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(repo / 'tools' / f'{tool}.py'), run_name='__main__')
        return end.value.code

    assert status('-h') == 0
    text = capsys.readouterr().out
    assert '--cfg-options' in text
    assert '--gpus' not in text  # mim would add the option to its call
    assert status('c.py', 'b.pth', 'a.jpg', '--out-dir', 'd', '--colour') == 2
    assert 'unrecognized arguments: ' in capsys.readouterr().err
