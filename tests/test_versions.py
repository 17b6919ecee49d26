import importlib.metadata
import re
import sys
from contextlib import contextmanager

import pytest

from icconv_mm import registry, versions
from icconv_mm.errors import MissingLibraryError


def pretend_installed(monkeypatch, **releases):
    """Pretend that exactly these distributions are installed."""

    def version(name):
        if name not in releases:
            raise importlib.metadata.PackageNotFoundError(name)
        return releases[name]

    monkeypatch.setattr(importlib.metadata, 'version', version)
    monkeypatch.setattr(versions, 'is_installed', lambda name: False)


@contextmanager
def explaining(what):
    try:
        yield
    except Exception as error:
        versions.explain_import(error, what)
        raise


# of a subprocess: as if the distributions of OpenMMLab were not installed
GOOD = {'torch': '2.11.0+cu130', 'mmengine': '0.10.7', 'mmcv': '2.1.0'}


def test_installed_libraries_are_supported():
    versions.check_versions()


def test_forks_are_accepted(monkeypatch):
    forks = {'torch': '2.11.0', 'onedl-mmengine': '0.10.9', 'onedl-mmcv': '2.3.0', 'onedl-mmdetection': '3.4.5'}
    pretend_installed(monkeypatch, **forks)
    versions.check_versions()
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
    pretend_installed(monkeypatch, **{k: v for k, v in {**GOOD, **change}.items() if v})
    with pytest.raises(ImportError) as error:
        versions.check_versions()
    assert all(word in str(error.value) for word in words), error.value


def test_a_task_library_is_checked_where_it_is_named(monkeypatch):
    """An old mmpose beside it is no matter to who uses another library."""
    pretend_installed(monkeypatch, **GOOD, mmpose='1.1.0')
    versions.check_versions()
    with pytest.raises(ImportError, match=r'mmpose: found mmpose 1\.1\.0; icconv_mm supports >=1\.2, <2'):
        versions.check_versions(('mmpose',))


@pytest.mark.parametrize(
    ('releases', 'command'),
    [
        ({'mmcv-lite': '2.1.0', 'torch': '2.11.0'}, 'python -m icconv_mm.install_openmmlab --yes'),
        (
            {'onedl-mmcv': '2.3.6', 'torch': '2.13.0'},
            'pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv',
        ),
        # needs C++20
        ({'onedl-mmcv': '2.3.6', 'torch': '2.14.1+cpu'}, 'python -m icconv_mm.install_openmmlab --torch 2.15 --yes'),
    ],
)
def test_missing_operators_of_mmcv(monkeypatch, releases, command):
    pretend_installed(monkeypatch, **releases)
    monkeypatch.setitem(sys.modules, 'mmcv._ext', None)
    words = re.escape('this needs the compiled operators of mmcv (') + f'.*{re.escape(f": `{command}`")}$'
    with pytest.raises(MissingLibraryError, match=words), explaining('this'):
        import mmcv._ext  # noqa: F401
    with pytest.raises(MissingLibraryError, match=words), explaining('this'):
        raise ImportError("class `Head` in head.py: No module named 'mmcv._ext'")  # as of mmengine's registry
    with pytest.raises(ImportError, match='another'), explaining('this'):
        raise ImportError('another', name='mmdet')


@pytest.mark.parametrize('there', [True, False])
def test_transformers_that_mmpretrain_does_not_support(monkeypatch, there):
    pretend_installed(monkeypatch, transformers='5.24.0')
    monkeypatch.setattr(versions, 'is_installed', lambda name: there)
    words = (
        'mmdet fails in the import of mmpretrain, .* transformers 5.24.0: `pip install "transformers<4.49"`'
        if there
        else '^NoneType takes no arguments$'
    )
    with pytest.raises(MissingLibraryError if there else TypeError, match=words), explaining('mmdet'):

        class Derived(None):  # as of a class that a newer transformers does not have
            pass
