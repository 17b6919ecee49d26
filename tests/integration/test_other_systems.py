"""The pure wheel where Linux's own modules are hidden, as on Windows and macOS: images, network, file, predictions."""

import json
import os
import subprocess
import sys
import zipfile

import labelled
import pytest
from trees import copy_tracked

pytestmark = pytest.mark.slow

# sitecustomize.py, which every process imports first; mmengine imports resource wherever it is not on Windows
HIDDEN = """
import importlib.machinery, os

_find = importlib.machinery.PathFinder.find_spec.__func__


def find_spec(kind, name, path=None, target=None):
    return None if name in ('fcntl', 'termios') else _find(kind, name, path, target)


def no_links(*given, **named):
    raise OSError(22, 'no links')


importlib.machinery.PathFinder.find_spec = classmethod(find_spec)
del os.O_NOFOLLOW, os.fork
os.symlink = os.link = no_links
"""
HIDES = (
    'import os\n'
    'try:\n    import fcntl\n'
    'except ModuleNotFoundError:\n    print("hidden", not hasattr(os, "fork"), not hasattr(os, "O_NOFOLLOW"))'
)


@pytest.fixture(scope='module')
def site(repo, tmp_path_factory):
    """A folder with what the wheel without operators brings."""
    tree, root = copy_tracked(repo, tmp_path_factory.mktemp('tree')), tmp_path_factory.mktemp('pure')
    code = f'from setuptools import build_meta; build_meta.build_wheel({str(root)!r})'
    off = {**os.environ, 'ICCONV_MM_EXT': 'off'}
    subprocess.run([sys.executable, '-c', code], cwd=tree, env=off, check=True, capture_output=True)
    (wheel,) = root.glob('*.whl')
    assert wheel.name.endswith('-py3-none-any.whl'), 'one wheel for all systems'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(root / 'site')
    (root / 'site' / 'sitecustomize.py').write_text(HIDDEN)
    return root / 'site'


def test_a_folder_is_trained_exported_and_predicted(site, tmp_path):
    pytest.importorskip('mmdet')
    pytest.importorskip('onnxruntime')
    data = labelled.voc(tmp_path / 'data')

    def python(*words):
        environment = {**os.environ, 'PYTHONPATH': str(site), 'ICCONV_MM_REQUIRE_CPU': '0'}
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    assert str(site) in python('-c', 'import icconv_mm; print(icconv_mm.__file__)')
    assert python('-c', HIDES).strip() == 'hidden True True'
    spawn = 'env_cfg.mp_cfg.mp_start_method=spawn'  # as Windows starts the processes that load images
    options = ('--size', '64', '--epochs', '1', '--pretrained', 'none', '--work-dir', 'run', '--cfg-options', spawn)
    python('-m', 'icconv_mm', 'train', data, *options)
    python('-m', 'icconv_mm', 'predict', 'run/epoch_1.pth', data / 'JPEGImages', '--out-dir', 'found', '--to', 'yolo')
    assert json.loads((tmp_path / 'found' / 'predictions.json').read_text())
    written = list((tmp_path / 'found' / 'yolo' / 'images').rglob('*.png'))
    assert len(written) == 3 and not any(path.is_symlink() for path in written)
    python('-m', 'icconv_mm', 'export', 'run/epoch_1.pth', '--to', 'onnx', '--out', 'model.onnx')
    python('-m', 'icconv_mm_runtime', 'model.onnx', data / 'JPEGImages', '--out-dir', 'exported')
    assert json.loads((tmp_path / 'exported' / 'predictions.json').read_text())
