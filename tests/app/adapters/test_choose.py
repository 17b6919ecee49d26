"""Which task a config belongs to, and results in COCO format."""

import subprocess
import sys
import textwrap

import pytest
from mmengine.config import Config

from icconv_mm import registry, versions
from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.adapters.choose import scope_and_adapter
from icconv_mm.app.adapters.libraries import adapter_of
from icconv_mm.app.runs.begin import TaskRun, begin
from icconv_mm.app.runs.prepare import Predicting
from icconv_mm.config_tree import datasets_of
from icconv_mm.errors import InputError, MissingLibraryError
from icconv_mm.tasks.libraries import registered_class, scope_of


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
        begin(TaskRun(Config({'model': {'type': 'Toy'}}), None, TaskAdapter(), 'c.py'), purpose=Predicting())


def test_unsupported_version(monkeypatch):
    monkeypatch.setattr('icconv_mm.versions.installed', lambda name: ('mmdet', '2.28.0'))
    with pytest.raises(MissingLibraryError, match=r'(?s)c\.py: .*mmdet: found mmdet 2\.28\.0'):
        scope_and_adapter({'default_scope': 'mmdet'}, 'c.py')


@pytest.mark.parametrize(
    ('library', 'kind', 'key', 'said'),
    [
        ('mmdet', 'CocoDataset', 'classes', 'person'),
        ('mmseg', 'CityscapesDataset', 'classes', 'road'),
        ('mmpose', 'CocoDataset', 'from_file', 'coco.py'),
    ],
)
def test_what_a_dataset_of_the_library_says_where_the_checkpoint_says_nothing(library, kind, key, said):
    pytest.importorskip(library)
    dataset = dict(type=kind, ann_file='a.json')  # as upstream's configs: without scope
    cfg = Config(dict(default_scope=library, test_dataloader=dict(dataset=dataset)))
    assert said in str(adapter_of(library).dataset_meta({}, datasets_of(cfg))[key])
    assert key != 'classes' or said in adapter_of(library).classes(dataset)
    dataset['type'] = adapter_of(library).dataset_class(kind)  # as in configs in pure Python
    assert isinstance(dataset['type'], type)
    cfg = Config(dict(default_scope=library, test_dataloader=dict(dataset=dataset)))
    assert said in str(adapter_of(library).dataset_meta({}, datasets_of(cfg))[key])


def test_mmcv_without_operators():
    """As plain ``pip install onedl-mmcv`` gives: detection needs them; semantic segmentation of the fork does not."""
    for library in ('mmdet', 'mmseg'):
        pytest.importorskip(library)
    code = """
        import sys
        sys.modules['mmcv._ext'] = None
        from icconv_mm import errors, registry
        from icconv_mm.app.adapters.libraries import adapter_of
        from mmengine.registry import DefaultScope
        for library, kind in ('mmseg', 'PyConvHead'), ('mmdet', 'PANetBBoxHead'):
            DefaultScope.get_instance(library, scope_name=library)
            try:
                print(adapter_of(library).library, registry.MODELS.get(kind).__name__)
            except errors.MissingLibraryError as error:
                print(error)
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    semantic, detection = (line for line in run.stdout.splitlines() if line.startswith('mm'))
    needs = 'needs the compiled operators of mmcv (import of mmcv._ext halted; None in sys.modules): `'
    assert detection.startswith(f'mmdet {needs}')
    forked = versions.installed('mmseg')[0].startswith('onedl')
    assert semantic == 'mmseg PyConvHead' if forked else semantic.startswith(f'mmseg {needs}')


def test_a_task_is_imported_with_its_library_and_not_before():
    """Each task library costs seconds at start-up."""
    code = """
        import sys
        from icconv_mm import registry
        SHARED = 'adapter', 'check_levels', 'choose', 'libraries', 'multitask'
        shared = tuple(f'icconv_mm.tasks.{module}' for module in SHARED)  # no library
        names = lambda: (name for name in sys.modules if name.startswith('icconv_mm.tasks.'))
        loaded = lambda: sorted(name for name in names() if not name.startswith(shared))
        assert loaded() == [], loaded()
        assert not set(registry.LIBRARIES) & set(sys.modules)
        # a folder whose library is not loaded, and sys for a library
        libraries = set(registry.LIBRARIES)
        registry.LIBRARIES = {'loaded_library': 'semantic.adapter', 'other_library': 'detection'}
        registry.MODELS.get('ICResNet')
        assert loaded() == [], loaded()
        assert not libraries & set(sys.modules)
        registry.import_task = lambda library: print('imported', library)
        sys.modules['loaded_library'] = sys  # imported after the first lookup, without its models: as mmdet by mmseg
        registry.MODELS.get('ICResNet')
        print('not imported')
        registry.MODELS.get('Unknown')
        sys.modules['loaded_library.models'] = sys
        registry.MODELS.get('ICResNet')
        del sys.modules['loaded_library.models']
        from mmengine.registry import DefaultScope
        DefaultScope.get_instance('run', scope_name='loaded_library')
        registry.MODELS.get('ICResNet')
    """
    run = subprocess.run([sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ['not imported', *3 * ['imported loaded_library']]


def test_a_type_of_a_library_that_is_not_installed(monkeypatch):
    is_installed = versions.is_installed
    monkeypatch.setattr(versions, 'is_installed', lambda name: name != 'mmpose' and is_installed(name))
    with pytest.raises(InputError, match=r"^model\.type: no registered 'icconv_mm\.Nothing'; .*: mmpose"):
        registered_class(registry.MODELS, 'icconv_mm.Nothing', 'model.type')


def test_fewer_class_names_than_a_head_has():
    """More are no fault, and heads of other numbers do not count."""
    import torch

    adapter, network = adapter_of('mmdet'), torch.nn.Module()
    network.bbox_head, network.rpn_head = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    network.bbox_head.num_classes, network.rpn_head.num_classes = 2, 9
    for names in (('a', 'b'), ('a', 'b', 'c')):
        adapter.check_names(network, dict(classes=names), 'net.pth')
    for names in ((), ('a',)):
        with pytest.raises(
            InputError, match=rf'^net\.pth names {len(names)} classes, but bbox_head of the model has 2'
        ):
            adapter.check_names(network, dict(classes=names), 'net.pth')
