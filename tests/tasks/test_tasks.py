"""Which task a config belongs to, and results in COCO format."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from pycocotools.mask import decode

from icconv_mm.errors import MissingLibraryError
from icconv_mm.tasks.coco_format import run_lengths, xywh
from icconv_mm.tasks.libraries import scope_of
from icconv_mm.tasks.select import get_task


@pytest.mark.parametrize(
    'cfg, scope',
    [
        ({'default_scope': 'mmdet'}, 'mmdet'),
        ({'default_scope': 'mmseg', 'model': {'type': 'mmdet.FasterRCNN'}}, 'mmseg'),
        ({'model': {'type': 'mmpose.BottomupPoseEstimator'}}, 'mmpose'),
        ({'default_scope': 'icconv_mm', 'model': {'type': 'mmdet.FasterRCNN'}}, 'mmdet'),
        ({'default_scope': 'mmengine', 'model': {'type': 'Toy'}}, 'mmengine'),
    ],
)
def test_scope(cfg, scope):
    assert scope_of(cfg) == scope


def test_unknown_task():
    with pytest.raises(ValueError, match=r'c\.py: default_scope = None, expected one of mmdet, mmseg'):
        get_task({'model': {'type': 'Toy'}}, 'c.py')


def test_unsupported_version(monkeypatch):
    monkeypatch.setattr('icconv_mm.versions.installed', lambda name: ('mmdet', '2.28.0'))
    with pytest.raises(MissingLibraryError, match=r'(?s)c\.py: .*mmdet: found mmdet 2\.28\.0'):
        get_task({'default_scope': 'mmdet'}, 'c.py')


def test_a_task_is_imported_with_its_library_and_not_before():
    """Each task library costs seconds at start-up."""
    code = """
        import sys
        from icconv_mm import registry
        from icconv_mm.utils import task_folders
        shared = tuple(f'icconv_mm.tasks.{each}' for each in ('base', 'libraries', 'multitask', 'select'))  # no library
        names = lambda: (name for name in sys.modules if name.startswith('icconv_mm.tasks.'))
        loaded = lambda: sorted(name for name in names() if not name.startswith(shared))
        assert loaded() == [], loaded()
        assert not set(task_folders.TASKS) & set(sys.modules)
        # two modules of the package stand for task folders, sys for a library
        task_folders.TASKS = {'loaded_library': 'coco_format', 'other_library': 'detection'}
        registry.MODELS.get('ICResNet')
        assert loaded() == [], loaded()
        assert not {'mmdet', 'mmseg', 'mmpose', 'mmpretrain'} & set(sys.modules)
        sys.modules['loaded_library'] = sys  # imported after the first lookup
        registry.MODELS.get('ICResNet')
        assert loaded() == ['icconv_mm.tasks.coco_format'], loaded()
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_boxes():
    assert xywh(np.array([1.0, 2.5, 4.00049, 8.0])) == [1.0, 2.5, 3.0, 5.5]


def test_masks():
    mask = np.zeros((5, 7), dtype=bool)
    mask[1:3, 2:6] = True
    rle = run_lengths(mask)
    assert rle['size'] == [5, 7]
    np.testing.assert_array_equal(decode({**rle, 'counts': rle['counts'].encode()}), mask)
