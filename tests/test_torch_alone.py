"""The package with torch alone: what works without OpenMMLab, that it computes the same, and what it refuses.

A child process bars the imports, as this one has mmengine loaded already. ``integration/test_install_routes.py`` does
the same in clean virtual environments.
"""

import ast
import subprocess
import sys

import pytest
import torch
from mmengine.logging import HistoryBuffer
from shipped_weights import fill

from icconv_mm import backbones, necks

BARRED = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpose', 'mmpretrain', 'cv2', 'rich', 'yaml', 'scipy', 'pycocotools')
BEGIN = f"""
import sys
for name in {BARRED}: sys.modules[name] = None
import torch, icconv_mm
from torch import nn
from icconv_mm import backbones, layers, necks
from icconv_mm.errors import MissingLibraryError
"""

# name -> (class, arguments, shapes of the input)
PYRAMID = [(1, 8, 16, 16), (1, 8, 8, 8)]
NETWORKS = {
    'ICResNet': (backbones, dict(depth=18, pattern='geometric_d4', base_channels=8, drop_path_rate=0.5),
                 (2, 3, 64, 64)),
    'ICResNetV1d': (backbones, dict(depth=50, pattern='dense', base_channels=8, norm_cfg=dict(type='GN', num_groups=4)),
                    (1, 3, 64, 64)),
    'PyConvResNet': (backbones, dict(depth=18, base_channels=16), (1, 3, 64, 64)),
    'SEPC': (necks, dict(in_channels=8, out_channels=8, num_outs=2, pconv_deform=True, lcconv_deform=True, ibn=True,
                         lcconv_padding=1), PYRAMID),
    'FPT': (necks, dict(in_channels=[8, 8], out_channels=32, num_outs=3, add_extra_convs='on_output'), PYRAMID),
    'UnscathedPyramid': (necks, dict(in_channels=8, out_channels=32, kernel_sizes=(1, 3)), PYRAMID),
    'SequenceNeck': (necks, dict(necks=2 * [dict(type='icconv_mm.PConv', in_channels=8, out_channels=8, num_outs=2)]),
                     PYRAMID),
}  # fmt: skip


def alone(code: str) -> str:
    """What the code prints in a process where nothing of OpenMMLab can be imported."""
    run = subprocess.run([sys.executable, '-c', BEGIN + code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_weights_of_the_package(weights_folder):
    """Without mmengine and without the library safetensors."""
    weights = fill(weights_folder, 'small', 'classification')['icconv_mm://small']
    code = f"""
from pathlib import Path
sys.modules['safetensors'] = None
from icconv_mm.checkpoints import shipped
shipped.FOLDER = Path({str(weights_folder)!r})
print(icconv_mm.create_model('small', pretrained=True).head.fc.bias.tolist())
"""
    assert alone(code).strip() == str(weights['head.fc.bias'].tolist())


@pytest.mark.parametrize('name', ['convert_checkpoint', 'download_patterns', 'make_miniature', 'show_pattern'])
def test_tools_that_read_no_config_start(repo, name):
    path = str(repo / 'tools' / f'{name}.py')
    code = f"""
del sys.modules['rich']  # of the extra `tools`
import runpy
sys.argv = [{path!r}, '--help']
runpy.run_path({path!r}, run_name='__main__')
"""
    assert '--debug' in alone(code)


@pytest.fixture(scope='module')
def outputs_alone(tmp_path_factory):
    path = tmp_path_factory.mktemp('alone') / 'outputs.pt'
    table = {name: (package.__name__, *rest) for name, (package, *rest) in NETWORKS.items()}
    alone(
        f'import importlib\noutputs, table = {{}}, {table!r}\n'
        'for name, (package, arguments, shapes) in table.items():\n'
        '    torch.manual_seed(0)\n'
        '    network = getattr(importlib.import_module(package), name)(**arguments)\n'
        '    network.init_weights()\n'
        '    inputs = [torch.randn(s) for s in shapes] if isinstance(shapes, list) else torch.randn(shapes)\n'
        '    state = {key: value.clone() for key, value in network.state_dict().items()}\n'
        '    outputs[name] = state, list(torch.utils._pytree.tree_flatten(network(inputs))[0])\n'
        f'torch.save(outputs, {str(path)!r})\n'
    )
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize('name', NETWORKS)
def test_the_small_forms_compute_what_the_libraries_compute(outputs_alone, name):
    """The same keys, the same weights from the same seed, and the same maps, drop path included."""
    package, arguments, shapes = NETWORKS[name]
    torch.manual_seed(0)
    network = getattr(package, name)(**arguments)
    network.init_weights()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    inputs = [torch.randn(shape) for shape in shapes] if isinstance(shapes, list) else torch.randn(shapes)
    maps = list(torch.utils._pytree.tree_flatten(network(inputs))[0])
    state_alone, maps_alone = outputs_alone[name]
    assert list(state) == list(state_alone) and len(maps) == len(maps_alone) > 0
    torch.testing.assert_close(state_alone, state, rtol=0, atol=0)
    torch.testing.assert_close(maps_alone, maps, rtol=1e-5, atol=1e-5)


def test_conversion_search_and_deployment():
    """Of a network of torchvision: a supernet, the search, inception convolutions, deployment."""
    pytest.importorskip('torchvision')
    alone(
        'import torchvision\n'
        'from icconv_mm.patterns.search import edo_search\n'
        'net = layers.to_supernet(torchvision.models.resnet18(), d_max=2, filter="layer4")\n'
        'net = layers.to_inception(net, edo_search(net, 2, filter="layer4"), filter="layer4")\n'
        'assert type(net.layer4[0].conv1) is layers.ICConv2d\n'
        'net = icconv_mm.ICBackbone(torchvision.models.resnet18(), "geometric_d2").eval()\n'
        'pyramidal = icconv_mm.PyConvBackbone(torchvision.models.resnet18()).eval()\n'
        'x = torch.randn(1, 3, 64, 64)\n'
        'for model in (net, pyramidal):\n'
        '    deployed = icconv_mm.deploy(model)\n'
        '    assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]\n'
        '    torch.testing.assert_close(deployed(x), model(x), rtol=1e-3, atol=1e-4)\n'
        'fpt = necks.FPT([8, 8], 32, norm_cfg=dict(type="BN")).eval()\n'
        'maps = [torch.randn(1, 8, 16, 16), torch.randn(1, 8, 8, 8)]\n'
        'deployed = icconv_mm.deploy(fpt)\n'
        'assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]\n'
        'torch.testing.assert_close(deployed(maps), fpt(maps), rtol=1e-3, atol=1e-4)\n'
    )


def test_checkpoint_of_mmengine(tmp_path):
    """Its logs are objects of mmengine, which are left behind."""
    log = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({'state_dict': {'w': torch.ones(2)}, 'message_hub': {'log_scalars': {'loss': log}}}, tmp_path / 'a.pth')
    printed = alone(
        'from icconv_mm.checkpoints import read\n'
        f'found = read({str(tmp_path / "a.pth")!r})\n'
        'print(found["state_dict"]["w"].tolist(), type(found["message_hub"]["log_scalars"]["loss"]).__module__)\n'
    )
    assert printed == '[1.0, 1.0] icconv_mm.checkpoints.reading\n'


REFUSED = [
    ('icconv_mm.ICBackbone(dict(type="mmdet.RegNet", arch="x"), "dense")', "type='mmdet.RegNet'", 'mmengine'),
    ('backbones.ResNet(18, dcn=dict(type="DCNv2"), stage_with_dcn=[True] * 4)', "conv_cfg of type 'DCNv2'", 'mmcv'),
    ('backbones.ResNet(18, norm_cfg=dict(type="LN2d"))', "norm_cfg of type 'LN2d'", 'mmcv'),
    (
        'backbones.ResNet(50, plugins=[dict(cfg=dict(type="ContextBlock"), position="after_conv3")])',
        "the plugin 'ContextBlock'",
        'mmcv',
    ),
    (
        'backbones.ResNet(18, init_cfg=dict(type="Pretrained", checkpoint="a.pth")).init_weights()',
        "a.pth: init_cfg of type 'Pretrained'",
        'mmengine',
    ),
    ('import icconv_mm.apis', 'icconv_mm cannot run', 'mmengine'),
    ('from icconv_mm.registry import MODELS', 'icconv_mm cannot run', 'mmengine'),
]
WITHOUT_DISTRIBUTIONS = 'icconv_mm.versions.installed = lambda name: None if "mm" in name else ("torch", "2.11")\n'


@pytest.fixture(scope='module')
def refusals():
    code = WITHOUT_DISTRIBUTIONS
    for call, *_ in REFUSED:
        code += f'try:\n    {call}\nexcept MissingLibraryError as error:\n    print(repr(str(error)))\n'
    return alone(code).splitlines()


@pytest.mark.parametrize('index', range(len(REFUSED)), ids=[call for call, *_ in REFUSED])
def test_what_needs_a_library_names_it(refusals, index):
    _, what, library = REFUSED[index]
    assert len(refusals) == len(REFUSED)
    printed = ast.literal_eval(refusals[index])
    assert printed.startswith(f'{what} ') and library in printed


def test_import_loads_the_standard_library_alone():
    """Whoever imports the package waits for nothing that he does not use."""
    code = (
        f'import sys\nfor name in {BARRED}: sys.modules[name] = None\n'
        'before = set(sys.modules)\n'
        'import icconv_mm\n'
        'print(sorted({name.split(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names))\n'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout == "['icconv_mm', 'icconv_mm_runtime']\n"
