"""Configs and options that do not exist are told at once."""

import copy
import importlib
import runpy
import sys
from pathlib import Path

import pytest

from icconv_mm import apis
from icconv_mm.apis import config
from icconv_mm.apis.config import as_config, load_config
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


def test_missing_config():
    with pytest.raises(MissingFileError, match=r'config: no such file: configs/nothing\.py'):
        load_config('configs/nothing.py')


@pytest.mark.parametrize('kind', [str, Path])
def test_a_file_is_a_config_too(tmp_path, kind):
    path = kind(write(tmp_path / 'c.py', "default_scope = 'mmengine'"))
    assert (cfg := as_config(path)).default_scope == 'mmengine' and cfg.filename == str(path)
    assert as_config(cfg) is cfg


@pytest.mark.parametrize(
    ('name', 'arguments'),
    [('Predictor', ['a.pth']), ('SearchPipeline', ['out']), ('browse', []), ('test', ['a.pth']), ('train', [])],
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


def test_text_of_a_config_is_formatted_once(tmp_path, monkeypatch):
    """What the runner logs, writes and gives its hooks is one text; a change of the config is seen."""
    calls = []

    def format_code(text, **options):
        calls.append(text)
        return f'# formatted\n{text}', True

    of_mmengine = hasattr(importlib.import_module('mmengine.config.config'), 'FormatCode')
    place = 'mmengine.config.config' if of_mmengine else 'yapf.yapflib.yapf_api'
    monkeypatch.setattr(f'{place}.FormatCode', format_code)
    config.format_once.cache_clear()
    path = tmp_path / 'config.py'
    path.write_text('a = dict(b=1)')
    cfg = load_config(str(path))
    texts = {cfg.pretty_text for _ in range(3)} | {copy.deepcopy(cfg).pretty_text}
    assert len(calls) == len(texts) == 1 and '# formatted' in texts.pop()
    cfg.a.b = 2
    assert 'b=2' in cfg.pretty_text and len(calls) == 2
    config.format_once.cache_clear()
