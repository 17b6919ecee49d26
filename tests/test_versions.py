import importlib.metadata
import subprocess
import sys

import pytest

from icconv_mm import registry, versions


def found(monkeypatch, **known):
    """Pretend that exactly these distributions are installed."""

    def version(name):
        if name not in known:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(versions, 'is_installed', lambda name: False)


# of a subprocess: as if the distributions of OpenMMLab were not installed
LOST = """
real = importlib.metadata.version
def version(name):
    if 'mm' in name:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
"""
GOOD = {'torch': '2.11.0+cu130', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


def test_installed_libraries_are_supported():
    versions.check()


def test_forks_are_accepted(monkeypatch):
    forks = {'torch': '2.11.0', 'onedl-mmengine': '0.10.9', 'onedl-mmcv': '2.3.0', 'onedl-mmdetection': '3.4.5'}
    found(monkeypatch, **forks)
    versions.check()
    assert versions.installed('mmdet') == ('onedl-mmdetection', '3.4.5')


def test_configs_inherit_from_a_fork(monkeypatch, tmp_path):
    """mmengine looks for the distribution mmsegmentation, which a fork of another name is not."""
    pytest.importorskip('mmseg')
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    (tmp_path / 'config.py').write_text("_base_ = 'mmseg::_base_/models/fpn_r50.py'")
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'a-distribution-that-is-not-here')
    with pytest.raises(ModuleNotFoundError):
        Config.fromfile(tmp_path / 'config.py')
    monkeypatch.setattr(versions, 'installed', {'mmseg': ('onedl-mmsegmentation', '1.4.2')}.get)
    registry.find_forks()
    assert Config.fromfile(tmp_path / 'config.py').model.type == 'EncoderDecoder'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'torch': '2.0.1'}, ['torch: found torch 2.0.1', '>=2.1']),
        ({'mmcv': '1.7.2'}, ['mmcv: found mmcv 1.7.2', '>=2.0.0']),
        ({'mmengine': '1.1'}, ['mmengine: found mmengine 1.1', '<1']),
        ({'mmengine': None}, ['mmengine: not installed', 'onedl-mmengine']),
    ],
)
def test_unsupported_version_is_named(monkeypatch, change, words):
    found(monkeypatch, **{k: v for k, v in {**GOOD, **change}.items() if v})
    with pytest.raises(ImportError) as error:
        versions.check()
    assert all(word in str(error.value) for word in words), error.value


def test_a_task_library_is_checked_where_it_is_named(monkeypatch):
    """An old mmpose beside it is no matter to who uses another library."""
    found(monkeypatch, **GOOD, mmpose='1.1.0')
    versions.check()
    with pytest.raises(ImportError, match=r'mmpose: found mmpose 1\.1\.0; icconv_mm supports >=1\.2, <2'):
        versions.check(('mmpose',))


def test_import_with_an_old_task_library():
    code = (
        'import importlib.metadata\n'
        'real = importlib.metadata.version\n'
        'importlib.metadata.version = lambda name: "0.1" if name in ("mmdet", "mmpose") else real(name)\n'
        'import icconv_mm\n'
        'assert icconv_mm.versions.installed("mmdet") == ("mmdet", "0.1")\n'
        'icconv_mm.registry.MODELS.build(dict(type="ICResNet", depth=18, pattern="geometric_d2", base_channels=8))\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_torch_alone_is_enough_for_patterns_operators_and_layers():
    code = (
        'import sys\n'
        'for name in ("mmengine", "mmcv", "mmdet", "mmseg", "mmpose", "mmpretrain"): sys.modules[name] = None\n'
        'import torch, icconv_mm, icconv_mm.ops, icconv_mm.layers, icconv_mm.patterns.search\n'
        'net = torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3, padding=1))\n'
        'icconv_mm.layers.to_inception(icconv_mm.layers.to_supernet(net, d_max=2), [[(4, 1, 1), (4, 2, 2)]])\n'
        'assert type(net[0]) is icconv_mm.layers.ICConv2d\n'
        'assert net(torch.ones(1, 4, 9, 9)).shape == (1, 8, 9, 9)\n'
        'out = icconv_mm.ops.inception_conv2d(torch.ones(1, 4, 9, 9), net[0].weight, None, net[0].pattern)\n'
        'out.sum().backward()\n'
        'icconv_mm.layers.PyConv2d(4, [4, 4], [3, 5], [1, 2])(torch.ones(1, 4, 9, 9))\n'
        'icconv_mm.layers.ScaleEqualizedConv2d(4, 4)(torch.ones(1, 4, 9, 9))\n'
        'try:\n'
        '    import icconv_mm.registry\n'
        'except ImportError as error:\n'
        '    print(error)\n'
    )
    code = 'import importlib.metadata\n' + LOST + code
    run = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    assert 'mmengine: not installed; icconv_mm supports mmengine or ' in run.stdout


def test_import_needs_no_task_library_and_loads_none():
    code = (
        'import sys\n'
        # an import of these then raises ImportError
        'for name in ("mmdet", "mmseg", "mmpose", "mmpretrain"): sys.modules[name] = None\n'
        'import icconv_mm\n'
        'from icconv_mm.registry import MODELS\n'
        'net = MODELS.build(dict(type="ICResNet", depth=18, pattern="geometric_d2", base_channels=8))\n'
        'assert icconv_mm.tasks and icconv_mm.necks and icconv_mm.checkpoints.convert\n'
        'assert not {"mmdet", "mmseg", "mmpose", "mmpretrain"} & {k for k, v in sys.modules.items() if v}\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_import_is_lazy():
    code = (
        'import sys, mmcv\n'
        'before = set(sys.modules)\n'
        'import icconv_mm\n'
        'new = {name.split(".")[0] for name in set(sys.modules) - before}\n'
        'assert not new & {"mmdet", "mmseg", "mmpose", "mmpretrain", "matplotlib", "scipy", "onnx"}, new\n'
        'assert "icconv_mm.backbones" not in sys.modules\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
