"""tools/search_pattern.py from a checkpoint file to files that load, and its refusals."""

import importlib
import json

import cv2
import numpy as np
import pytest
import torch

from icconv_mm.apis import read_images
from icconv_mm.backbones import ICResNet, ICResNeXt
from icconv_mm.datasets.loading import ImageFileError
from icconv_mm.patterns import read_patterns
from icconv_mm.patterns.search import edo_search

CONFIG = """
default_scope = 'mmengine'
custom_imports = dict(imports=['icconv_mm'])
model = dict(
    type='icconv_mm.ICResNet', depth=18, base_channels=8, supernet_d_max=2,
    data_preprocessor=dict(mean=[1.0, 2.0, 3.0], std=[2.0, 2.0, 4.0], bgr_to_rgb=True))
"""


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('search_pattern')


@pytest.fixture
def supernet(tmp_path):
    torch.manual_seed(1)
    network = ICResNet(18, base_channels=8, supernet_d_max=2)
    network.init_weights()
    torch.save({'state_dict': network.state_dict(), 'optimizer': {}}, tmp_path / 'supernet.pth')
    return network


def test_pattern_alone_is_sorted(tool, supernet, tmp_path, capsys):
    tool.main([f'{tmp_path}/supernet.pth', '--d-max', '2', '--out', f'{tmp_path}/out/pattern.json'])
    assert read_patterns(tmp_path / 'out/pattern.json') == edo_search(supernet, 2, sort=True)
    assert all(isinstance(layer, dict) for layer in json.loads((tmp_path / 'out/pattern.json').read_text()))
    assert 'layer4.1.conv2' in capsys.readouterr().out
    ICResNet(18, base_channels=8, pattern=tmp_path / 'out/pattern.json')


def test_initial_checkpoint_loads_strictly(tool, supernet, tmp_path):
    out, init = tmp_path / 'pattern.json', tmp_path / 'init.pth'
    arguments = [f'{tmp_path}/supernet.pth', '--d-max', '2', '--out', str(out), '--checkpoint-out', str(init)]
    tool.main(arguments)
    checkpoint = torch.load(init, weights_only=True)
    ICResNet(18, base_channels=8, pattern=out).load_state_dict(checkpoint['state_dict'], strict=True)
    assert checkpoint['meta']['searched_from']['file'] == 'supernet.pth'
    assert checkpoint['meta']['pattern'] == json.loads(out.read_text())
    first = out.read_bytes(), init.read_bytes()
    tool.main(arguments)
    assert (out.read_bytes(), init.read_bytes()) == first  # deterministic to the byte


def test_groups_come_from_the_option_or_the_config(tool, tmp_path):
    settings = {'depth': 50, 'groups': 4, 'base_width': 8, 'base_channels': 16, 'supernet_d_max': 1 + 1}
    network = ICResNeXt(**settings)
    torch.save(network.state_dict(), tmp_path / 'supernet.pth')
    (tmp_path / 'config.py').write_text(
        f"custom_imports = dict(imports=['icconv_mm'])\nmodel = dict(type='icconv_mm.ICResNeXt', **{settings})\n"
    )
    common = [f'{tmp_path}/supernet.pth', '--d-max', '2', '--out']
    tool.main([*common, f'{tmp_path}/a.json', '--groups', '4'])
    tool.main([*common, f'{tmp_path}/b.json', '--config', f'{tmp_path}/config.py'])
    assert read_patterns(tmp_path / 'a.json') == read_patterns(tmp_path / 'b.json')
    assert {pattern.out_channels for pattern in read_patterns(tmp_path / 'a.json')} == {4}


def test_channel_means_are_measured_on_a_folder(tool, supernet, tmp_path, capsys):
    (tmp_path / 'config.py').write_text(CONFIG.replace('data_preprocessor', 'init_cfg=None, **{}) #'))
    (tmp_path / 'images').mkdir()
    for i in range(2):
        cv2.imwrite(f'{tmp_path}/images/{i}.png', np.random.default_rng(i).integers(0, 255, (40, 50, 3), np.uint8))
    arguments = [f'{tmp_path}/supernet.pth', '--d-max', '2', '--out', f'{tmp_path}/pattern.json']
    arguments += ['--config', f'{tmp_path}/config.py', '--images', f'{tmp_path}/images']
    tool.main([*arguments, '--count', '1', '--criterion', 'expectation'])
    patterns = read_patterns(tmp_path / 'pattern.json')
    assert patterns != edo_search(supernet, 2, 'expectation', sort=True)  # the means are not all equal
    with pytest.raises(SystemExit):
        tool.main(arguments[:5] + ['--images', f'{tmp_path}/images'])
    assert '--images needs --config' in capsys.readouterr().err


def test_images_are_normalized_as_the_config_says(tmp_path):
    from mmengine.config import Config

    cv2.imwrite(f'{tmp_path}/a.png', np.full((20, 40, 3), (10, 20, 30), np.uint8))  # blue, green, red
    (batch,) = read_images(tmp_path, Config.fromstring(CONFIG, '.py'), longest=20)
    assert batch.shape == (1, 3, 10, 20)
    assert torch.equal(batch[0, :, 0, 0], torch.tensor([(30 - 1) / 2, (20 - 2) / 2, (10 - 3) / 4]))
    with pytest.raises(FileNotFoundError, match='no such file or folder'):
        list(read_images(tmp_path / 'none', Config()))
    (tmp_path / 'b.png').write_bytes(b'no image')
    with pytest.raises(ImageFileError, match=r'b\.png: cannot be decoded'):
        list(read_images(tmp_path, Config.fromstring(CONFIG, '.py')))


def _with(**changes):
    def change(state):
        return {**state, **{key.replace('__', '.'): value for key, value in changes.items()}}

    return change


@pytest.mark.parametrize(
    'change, d_max, message',
    [
        (lambda state: state, 4, 'layer1.0.conv1: kernel 5x5 (that is d_max 2), expected 9x9 for d_max 4'),
        (
            _with(layer1__0__conv1__weight=torch.full((8, 8, 5, 5), torch.nan)),
            2,
            'layer1.0.conv1.weight has 1600 of 1600',
        ),
        (lambda state: {'fc.weight': torch.zeros(2, 2)}, 2, 'no supernet kernel of 5x5 selected'),
        (lambda state: {'epoch': 3}, 2, "no weights found: the file holds 'epoch'"),
    ],
)
def test_unsuitable_checkpoints_are_refused_and_nothing_is_written(tool, supernet, tmp_path, change, d_max, message):
    torch.save(change(supernet.state_dict()), tmp_path / 'bad.pth')
    outputs = [tmp_path / 'out/pattern.json', tmp_path / 'out/init.pth']
    arguments = [
        f'{tmp_path}/bad.pth',
        '--d-max',
        str(d_max),
        '--out',
        str(outputs[0]),
        '--checkpoint-out',
        str(outputs[1]),
    ]
    with pytest.raises(SystemExit) as end:
        tool.main(arguments)
    error = str(end.value)
    assert f'{tmp_path}/bad.pth: ' in error and message in error and 'Nothing was written' in error
    assert not (tmp_path / 'out').exists()


def test_nothing_is_written_if_one_file_cannot_be(tool, supernet, tmp_path):
    (tmp_path / 'file').touch()
    arguments = ['--out', f'{tmp_path}/file/pattern.json', '--checkpoint-out', f'{tmp_path}/init.pth']
    with pytest.raises(SystemExit, match=f'error: {tmp_path}/file/pattern.json: '):
        tool.main([f'{tmp_path}/supernet.pth', '--d-max', '2', *arguments])
    assert not (tmp_path / 'init.pth').exists()


RF_NEXT = """
default_scope = 'mmdet'
model = dict(
    type='RetinaNet', init_cfg=None,
    backbone=dict(type='ResNet', depth=18, base_channels=8, strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
    neck=dict(type='FPN', in_channels=[8, 16, 32, 64], out_channels=8, num_outs=4),
    bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=8, stacked_convs=0,
                   anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[1.0], strides=[4, 8, 16, 32])))
"""


@pytest.fixture
def rf_next(tmp_path):
    """A config and what RFSearchHook has written of its network; the network with the dilations that it found."""
    from mmcv.cnn.rfsearch.search import RFSearchHook
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    (tmp_path / 'config.py').write_text(RF_NEXT)
    init_default_scope('mmdet')
    settings = dict(exp_rate=0.5, init_alphas=0.01, mmin=1, mmax=24, num_branches=2, search_interval=1, max_step=9)
    skipped = ['module.backbone.conv1', 'layer1', 'layer4', 'bbox_head']
    hook = RFSearchHook(config=dict(search=dict(settings, step=0, skip_layer=skipped)), verbose=False)
    torch.manual_seed(0)
    network = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    hook.init_model(network)
    for _ in range(2):
        for number, weights in enumerate(p for name, p in network.named_parameters() if 'branch_weights' in name):
            weights.data = torch.tensor([0.1, 0.1 + number % 3])
        hook.step(network, str(tmp_path))
    hook.mode = 'fixed_single_branch'
    hook.config['structure'] = {f'module.{name}': pair for name, pair in hook.config['structure'].items()}
    fixed = MODELS.build(Config.fromfile(tmp_path / 'config.py').model)
    hook.init_model(fixed)
    return str(tmp_path / 'local_search_config_step2.json'), str(tmp_path / 'config.py'), fixed.eval()


def test_what_rf_next_has_found(tool, rf_next, tmp_path, capsys, caplog):
    """A backbone with the pattern computes what mmcv's own network computes with the dilations that were found."""
    file, config, fixed = rf_next
    tool.main([file, '--config', config, '--out', f'{tmp_path}/out/pattern.json'])
    shown = capsys.readouterr().out
    assert 'backbone.layer2.0.conv1' in shown and 'pattern.json' in shown and 'neck' not in shown
    assert 'neck.fpn_convs.0.conv' in caplog.text
    patterns = read_patterns(tmp_path / 'out/pattern.json')
    assert {layer.max_dilation for layer in patterns} > {1, 2}
    options = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), base_channels=8)
    network = ICResNet(18, pattern=tmp_path / 'out/pattern.json', **options).eval()
    network.load_state_dict(fixed.backbone.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(network(image), fixed.backbone(image), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('[]', 'expected JSON with the dilations of layers below "structure"'),
        ('{"structure": {}}', 'it holds no layer'),
        ('{"structure": {"module.backbone.layer2.0.conv1": [2, 0]}}', 'two whole dilations above 0, got (2, 0)'),
        ('{"structure": {"module.backbone.layer9.0.conv1": 2}}', '1 of its 1 layers are not in the network'),
        ('{"structure": {"neck.fpn_convs.0.conv": [2, 2]}}', 'none of its layers is a 3x3 convolution of the backbone'),
        ('{"structure": {"backbone.layer4.1.conv1": 3}}', '(3, 3) is no multiple of that in the network, (2, 2)'),
    ],
)
def test_unsuitable_results_of_rf_next(tool, tmp_path, content, message):
    (tmp_path / 'found.json').write_text(content)
    (tmp_path / 'config.py').write_text(RF_NEXT)
    with pytest.raises(SystemExit) as end:
        tool.main([f'{tmp_path}/found.json', '--config', f'{tmp_path}/config.py', '--out', f'{tmp_path}/pattern.json'])
    assert f'{tmp_path}/found.json: ' in str(end.value) and message in str(end.value)
    assert not (tmp_path / 'pattern.json').exists()


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['found.json'], 'needs --config'),
        (['found.json', '--config', 'found.json', '--d-max', '4'], '--d-max is of a supernet'),
        (['supernet.pth'], '--d-max is needed'),
    ],
)
def test_options_of_either_search(tool, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / arguments[0]).touch()
    with pytest.raises(SystemExit) as end:
        tool.main([*arguments, '--out', 'pattern.json'])
    assert end.value.code == 2 and message in capsys.readouterr().err
