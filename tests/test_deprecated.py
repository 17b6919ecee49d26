"""Names of the version before still work, and say what to write instead."""

import importlib
import subprocess
import sys

import pytest
from mmengine.config import Config
from torch import nn

import icconv_mm
from icconv_mm.registry import HOOKS


@pytest.mark.parametrize(
    ('module', 'name', 'new'),
    [
        ('icconv_mm.hooks', 'InferenceFormHook', 'icconv_mm.engine.DeployHook'),
        ('icconv_mm.hooks', 'CheckpointMatchHook', 'icconv_mm.engine.CheckpointMatchHook'),
        ('icconv_mm.hooks', 'ResumableRandomnessHook', 'icconv_mm.engine.ResumableRandomnessHook'),
        ('icconv_mm.optim', 'CPUAmpOptimWrapper', 'icconv_mm.engine.CPUAmpOptimWrapper'),
        ('icconv_mm.layers', 'PConv', 'icconv_mm.layers.PConvLayer'),
        ('icconv_mm.datasets.loading', 'find_pictures', 'icconv_mm.datasets.loading.find_images'),
        ('icconv_mm.apis.inference', 'FailedPicturesError', 'icconv_mm.apis.inference.FailedImagesError'),
        ('icconv_mm.apis.errors', 'InputError', 'icconv_mm.errors.InputError'),
    ],
)
def test_old_name_warns(module, name, new):
    old = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=rf'{module}\.{name} is {new} now') as caught:
        found = getattr(old, name)
    assert caught[0].filename == __file__  # the place to change
    home, _, attribute = new.rpartition('.')
    assert found is getattr(importlib.import_module(home), attribute)
    assert not hasattr(old, 'NoSuchName')


def test_import_statements_find_modules_that_have_gone():
    code = 'import icconv_mm.optim; from icconv_mm.hooks import InferenceFormHook; icconv_mm.optim.CPUAmpOptimWrapper'
    run = subprocess.run([sys.executable, '-W', 'always', '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stderr.count('DeprecationWarning: icconv_mm.') == 2


def test_hook_of_a_config_by_its_old_name():
    with pytest.warns(DeprecationWarning, match=r'icconv_mm\.InferenceFormHook is icconv_mm\.DeployHook now'):
        hook = HOOKS.build({'type': 'icconv_mm.InferenceFormHook'})
    assert type(hook) is icconv_mm.engine.DeployHook


def test_pattern_of_a_conversion_by_its_former_name():
    network = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    with pytest.warns(DeprecationWarning, match='to_inception: patterns is pattern now; the next version') as caught:
        icconv_mm.layers.to_inception(network, patterns='dense')
    assert caught[0].filename == __file__ and isinstance(network[0], icconv_mm.layers.ICConv2d)
    with pytest.raises(TypeError, match='to_inception: patterns is pattern now, and both are given'):
        icconv_mm.layers.to_inception(network, pattern='dense', patterns='dense')


def test_config_of_a_search_by_its_former_name(tmp_path):
    apis = pytest.importorskip('icconv_mm.apis')
    cfg = Config({'model': {'backbone': {}}})
    with pytest.warns(DeprecationWarning, match='read_images: config is cfg now') as caught:
        images = apis.read_images(tmp_path, config=cfg)
    assert caught[0].filename == __file__
    with pytest.raises(FileNotFoundError, match='no image'):
        next(images)


def test_benchmarks_and_demo_have_left():
    with pytest.raises(ImportError, match=r'icconv_mm\.benchmark\.run: it is in tools/icconv_tools/benchmark now'):
        from icconv_mm.benchmark import run  # noqa: F401
    with pytest.raises(ImportError, match=r'icconv_mm\.apis\.demo\.run_demo: it is in tools/icconv_tools/demo now'):
        from icconv_mm.apis.demo import run_demo  # noqa: F401
