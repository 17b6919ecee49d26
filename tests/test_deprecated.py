"""Names of the version before still work, and say what to write instead."""

import importlib
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from torch import nn

import icconv_mm
from icconv_mm import _deprecated
from icconv_mm.registry import HOOKS


@pytest.mark.parametrize(
    ('module', 'name', 'new'),
    [
        (module, name, new)
        for module, names in _deprecated._NAMES.items()
        if module != 'icconv_mm.tasks.pose'  # which needs mmpose
        for name, new in names.items()
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


@pytest.mark.parametrize('old', _deprecated._NAMES['icconv_mm.tasks.pose'])
def test_old_names_of_pose(old):
    pytest.importorskip('mmpose')
    pose = importlib.import_module('icconv_mm.tasks.pose')
    new = _deprecated._NAMES['icconv_mm.tasks.pose'][old].rpartition('.')[2]
    with pytest.warns(DeprecationWarning, match=rf'pose\.{old} is icconv_mm\.tasks\.pose\.{new} now'):
        assert getattr(pose, old) is getattr(pose, new)


@pytest.mark.parametrize(
    ('registry', 'old', 'new', 'options'),
    [
        ('TRANSFORMS', 'PackPyramidInputs', 'PackMultiScaleInputs', {}),
        ('TRANSFORMS', 'PyramidResize', 'MultiScaleResize', {'input_size': (64, 64), 'scales': [1]}),
        ('MODELS', 'PyramidDataPreprocessor', 'MultiScaleDataPreprocessor', {}),
    ],
)
def test_types_of_pose_by_their_old_names(registry, old, new, options):
    registries = pytest.importorskip('mmpose.registry')
    with pytest.warns(DeprecationWarning, match=rf'icconv_mm\.{old} is icconv_mm\.{new} now'):
        built = getattr(registries, registry).build({'type': f'icconv_mm.{old}', **options})
    assert type(built) is getattr(icconv_mm, new)


def test_order_of_grouping_by_its_former_name():
    pytest.importorskip('mmpose')
    maps = torch.zeros(2, 8, 8), torch.zeros(2, 8, 8, 1)
    with pytest.warns(DeprecationWarning, match='group_keypoints: joint_order is keypoint_order now') as caught:
        icconv_mm.tasks.pose.group_keypoints(*maps, joint_order=[1, 0])
    assert caught[0].filename == __file__
    with pytest.warns(DeprecationWarning, match='AECodec: joint_order is keypoint_order now'):
        codec = icconv_mm.AECodec(joint_order=[1, 0])
    assert codec.grouping['keypoint_order'] == [1, 0]


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
