"""Configs and options that do not exist are told at once."""

import sys
from pathlib import Path

import pytest

from icconv_mm import apis, versions
from icconv_mm.app.runs.begin import begin, load_config, load_run
from icconv_mm.errors import InputError, MissingFileError, MissingLibraryError


def write(path, text):
    path.write_text(text)
    return str(path)


def test_work_dir(tmp_path):
    path = write(tmp_path / 'c.py', 'a = 1')
    assert load_config(path).work_dir == 'work_dirs/c'
    assert load_config(path, work_dir='x').work_dir == 'x'
    assert load_config(write(tmp_path / 'd.py', 'work_dir = "y"')).work_dir == 'y'


def test_options_are_merged(tmp_path):
    path = write(tmp_path / 'c.py', 'train_cfg = dict(max_iters=5)\ncustom_hooks = [dict(a=1)]')
    cfg = load_config(path, {'train_cfg.max_iters': 7, 'custom_hooks.0.a': 2})
    assert (cfg.train_cfg.max_iters, cfg.custom_hooks[0].a) == (7, 2)


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


def test_config_beside_a_setuptools_that_mmengine_does_not_support(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    if versions.installed('mmengine')[0] != 'mmengine':
        pytest.skip("could not import 'mmengine' of OpenMMLab: the fork needs no pkg_resources")
    monkeypatch.setitem(sys.modules, 'pkg_resources', None)  # setuptools 82 and newer lack it
    with pytest.raises(InputError, match=r'pkg_resources.*: pip install "setuptools<81"$'):
        load_config(write(tmp_path / 'c.py', "_base_ = 'mmdet::_base_/default_runtime.py'"))


@pytest.mark.parametrize('kind', [str, Path])
def test_a_file_is_a_config_too(tmp_path, kind):
    path = kind(write(tmp_path / 'c.py', "default_scope = 'mmengine'"))
    run = begin(path)
    assert run.cfg.default_scope == run.scope == 'mmengine' and run.name == run.cfg.filename == str(path)
    assert begin(run) is run and begin(run.cfg).cfg is run.cfg


def test_an_option_may_choose_the_task(tmp_path):
    pytest.importorskip('mmdet')
    path = write(tmp_path / 'c.py', "default_scope = 'mmengine'\nmodel = dict(type='Toy')")
    assert not load_run(path).adapter.library
    assert load_run(path, {'model.type': 'mmdet.FasterRCNN'}).adapter.library == 'mmdet'
    assert load_run(path, {'default_scope': 'mmdet'}).scope == 'mmdet'


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [('Predictor', ['a.pth']), ('browse', []), ('test', ['a.pth']), ('train', [])],
)
def test_every_purpose_reads_the_file_of_a_config(name, arguments):
    with pytest.raises(MissingFileError, match=r'config: no such file: gone\.py'):
        getattr(apis, name)(Path('gone.py'), *arguments)


@pytest.mark.parametrize('text', ["default_scope = 'mmrotate'", "model = dict(type='mmrotate.Rotated')"])
def test_task_library_that_is_not_installed(tmp_path, text):
    with pytest.raises(MissingLibraryError, match=r"c\.py needs mmrotate \(default_scope = 'mmrotate'\)"):
        load_config(write(tmp_path / 'c.py', text))


def test_install_hint_for_a_library_known_here(tmp_path, monkeypatch):
    monkeypatch.setattr('icconv_mm.versions.is_installed', lambda name: name != 'mmseg')
    with pytest.raises(MissingLibraryError, match=r'which is not installed: pip install "mmsegmentation>='):
        load_config(write(tmp_path / 'c.py', "default_scope = 'mmseg'"))
