"""Defaults are those of the ResNet of the library whose config is changed."""

import inspect
import sys
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import pytest
import torch
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope, Registry

import icconv_mm
from icconv_mm.backbones import ICResNet, ICResNeXt, PyConvHGResNet, PyConvResNet, ResNet
from icconv_mm.compat import library_default
from icconv_mm.registry import LIBRARIES

# compared by what is built or given: None stands for what the depth decides
BY_WHAT_IS_BUILT = {'init_cfg', 'pretrained', 'depth', 'expansion', 'self'}
KINDS = {'ResNet': ResNet, 'ICResNet': ICResNet, 'PyConvResNet': PyConvResNet, 'PyConvHGResNet': PyConvHGResNet}


@contextmanager
def scope(name):
    with DefaultScope.overwrite_default_scope(name):
        yield


def theirs(library, name='ResNet'):
    pytest.importorskip(library)
    return getattr(import_module(f'{library}.models'), name, None) or getattr(
        import_module(f'{library}.models.backbones'), name
    )


def norms_that_train(net):
    net.train()
    return sum(module.training for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d))


@pytest.mark.parametrize('library', LIBRARIES)
def test_every_argument_that_is_shared(library):
    """The attributes of both networks, for each argument of the library's that ours has."""
    kind = theirs(library)
    given, base = (inspect.signature(backbone.__init__).parameters for backbone in (kind, ResNet))
    with scope(library):
        expected, net = kind(depth=50, base_channels=16), ResNet(50, base_channels=16)
    names = (given.keys() & base.keys()) - BY_WHAT_IS_BUILT
    assert len(names) >= 15
    for name in sorted(names):
        value = getattr(expected, name, None)
        if value is None:  # not kept
            value = given[name].default or (expected.base_channels if name == 'stem_channels' else None)
        assert (tuple_of(value) or None) == (tuple_of(getattr(net, name)) or None), name
    assert shapes_of(expected) == shapes_of(net)
    assert norms_that_train(expected) == norms_that_train(net)


def shapes_of(net):
    return {key: value.shape for key, value in net.state_dict().items()}


def tuple_of(value):
    return tuple(value) if isinstance(value, list) else dict(value) if isinstance(value, dict) else value


@pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)
@pytest.mark.parametrize('library', LIBRARIES)
def test_every_backbone_follows(library, kind):
    with scope(library):
        expected = theirs(library)(depth=50, base_channels=16)
        net = kind(depth=50, base_channels=16, **(dict(pattern='dense') if kind is ICResNet else {}))
    assert (net.norm_eval, net.out_indices) == (expected.norm_eval, tuple(expected.out_indices))
    assert net.conv1.out_channels == expected.conv1.out_channels


@pytest.mark.parametrize('groups', [{}, {'groups': 32}], ids=str)
@pytest.mark.parametrize('library', LIBRARIES)
def test_a_resnext(library, groups):
    with scope(library):
        nets = theirs(library, 'ResNeXt')(depth=50, **groups), ICResNeXt(50, 'dense', **groups)
    assert shapes_of(nets[0]) == shapes_of(nets[1])


def test_what_is_given_counts():
    with scope('mmdet'):
        net = ResNet(18, norm_eval=False, stem_channels=8, base_channels=16)
        assert norms_that_train(net) == 21 and net.conv1.out_channels == 8  # one in a shortcut that widens
    with scope('mmpose'):
        assert ResNet(18, base_channels=16, stem_channels=16, out_indices=(0, 1)).out_indices == (0, 1)


@pytest.mark.parametrize('name', ['mmengine', 'icconv_mm', 'unheard_of'])
def test_without_a_library(name):
    with scope(name):
        net = ResNet(18, base_channels=16)
    assert (net.norm_eval, net.stem_channels, net.out_indices) == (False, 16, (0, 1, 2, 3))


@pytest.mark.parametrize('form', ['imports', 'registry beside', 'registry below'])
def test_a_library_on_top_of_another(form, monkeypatch):
    """As mmrotate and mmyolo, whose configs have backbones of mmdet."""
    mmdet = pytest.importorskip('mmdet')
    name = f'rotated_{form.split()[-1]}'
    if form != 'registry below':
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules[name], 'mmdet', mmdet, raising=False)
    if form != 'imports':
        below = form == 'registry below'
        Registry('model', parent=import_module('mmdet.registry').MODELS if below else ROOT, scope=name)
    with scope(name):
        assert ResNet(18).norm_eval is True and library_default('no_such_argument', 'nothing') == 'nothing'


def test_by_name_nothing_depends_on_a_scope():
    for name in ('mmdet', 'mmpose'):
        with scope(name):
            net = icconv_mm.create_model('ic_resnet18', pattern='dense', base_channels=16, features_only=True)
        assert (net.norm_eval, net.stem_channels, net.out_indices) == (False, 16, (0, 1, 2, 3))
