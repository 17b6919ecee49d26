"""Configs for one's own images that start from the weights of the package."""

import json
import re
from pathlib import Path

import labelled
import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from shipped_weights import fill

from icconv_mm.app import commands
from icconv_mm.app.training.own_data import LIBRARY, config_for
from icconv_mm.app.training.own_data_text import written_choices
from icconv_mm.checkpoints.loader import load_from_package
from icconv_mm.checkpoints.matching import ArchitectureMismatchError, fit_around_backbone
from icconv_mm.errors import MissingFileError

DETECTOR = 'icconv_mm://small_detection'
QUICK = dict(backbone='small', size=64, epochs=1)


def heads(cfg):
    """Builds a config's network and fits the detector's weights; returns the modules that get none of them."""
    init_default_scope(cfg.default_scope)
    network = MODELS.build(cfg.model)
    content = load_from_package(cfg.load_from)
    given = dict(content['state_dict'])
    left = fit_around_backbone(network, content, cfg.load_from)
    network.load_state_dict(content['state_dict'])
    loaded = network.state_dict()
    for key in ('backbone.conv1.weight', 'neck.lateral_convs.2.conv.weight', 'neck.fpn_convs.0.conv.weight'):
        assert torch.equal(loaded[key], given[key]), key
    return left


@pytest.mark.parametrize(
    ('task', 'write', 'left'),
    [
        ('detection', labelled.voc, {'rpn_head.rpn_reg', 'roi_head', 'neck.lateral_convs.0.bn'}),
        ('instance', labelled.masks, {'rpn_head.rpn_reg', 'roi_head', 'neck.lateral_convs.0.bn'}),
        ('semantic', labelled.seg_maps, {'decode_head', 'neck.lateral_convs.0.bn'}),
        ('pose', labelled.deeplabcut, {'head', 'neck.lateral_convs.0.bn'}),
        ('all', labelled.masks, {'tasks', 'neck.lateral_convs.0.bn'}),
    ],
)
def test_a_network_takes_what_fits(tmp_path, weights_folder, task, write, left):
    pytest.importorskip(LIBRARY.get(task, 'mmdet'))
    fill(weights_folder)
    said = []
    cfg = config_for(write(tmp_path / 'data'), task, work_dir=tmp_path / 'run', say=said.append, **QUICK)
    assert cfg.load_from == DETECTOR and 'init_cfg' not in cfg.model.backbone
    assert [line for line in said if line.startswith('weights:')] == [
        f'weights: {DETECTOR}, trained on drawn images; --pretrained none starts from random numbers'
    ]
    assert str(weights_folder) not in Path(cfg.filename).read_text()
    assert left <= set(heads(cfg)) and not {'backbone', 'neck', 'rpn_head'} & set(heads(cfg))
    plain = config_for(tmp_path / 'data', task, work_dir=tmp_path / 'run', pretrained='none', say=said.append, **QUICK)
    assert plain.load_from is None and plain.learning_rate == cfg.learning_rate


def test_a_classifier_takes_the_backbone(tmp_path, weights_folder):
    pytest.importorskip('mmpretrain')
    weights = fill(weights_folder)['icconv_mm://small']
    cfg = config_for(labelled.folders(tmp_path / 'data'), work_dir=tmp_path / 'run', **QUICK)
    assert cfg.load_from is None
    init_default_scope('mmpretrain')
    network = MODELS.build(cfg.model)
    network.init_weights()
    assert torch.equal(network.backbone.conv1.weight, weights['backbone.conv1.weight'])


@pytest.mark.parametrize('is_first', [True, False])
def test_a_training_goes_on_from_what_it_began_with(tmp_path, weights_folder, is_first):
    """One of a version without weights goes on without; one that has not begun has those of the package."""
    pytest.importorskip('mmdet')
    data, options = labelled.voc(tmp_path / 'data'), dict(work_dir=tmp_path / 'run', **QUICK)
    if not is_first:
        assert config_for(data, **options).load_from is None
    fill(weights_folder)
    cfg = config_for(data, resume=True, **options)
    assert cfg.load_from == (DETECTOR if is_first else None)
    assert config_for(data, resume=True, **options).load_from == cfg.load_from, 'again'
    assert config_for(data, **options).load_from == DETECTOR, 'a new training'


def test_choices_of_an_earlier_version_say_whether_there_were_weights(tmp_path):
    pytest.importorskip('mmdet')
    file, state = tmp_path / 'w.pth', {'backbone.a': torch.ones(1)}
    torch.save(state, file)
    options = dict(work_dir=tmp_path / 'run', size=64, epochs=1, backbone='ic_resnet18')
    path = Path(config_for(labelled.voc(tmp_path / 'data'), pretrained=str(file), **options).filename)
    choices = path.with_suffix('.choices.json')
    assert written_choices(path)['weights'] == json.loads(choices.read_text())['weights'] != {}
    choices.unlink()
    assert written_choices(path)['weights']


def test_a_backbone_that_does_not_fit(tmp_path, weights_folder):
    """The message names the weights; nothing is loaded."""
    fill(weights_folder)
    with pytest.raises(MissingFileError, match=r'icconv_mm://big: icconv_mm has no such weights; there are: small, sm'):
        load_from_package('icconv_mm://big')
    network = torch.nn.ModuleDict(dict(backbone=torch.nn.Conv2d(3, 24, 3)))
    with pytest.raises(ArchitectureMismatchError, match=r'^icconv_mm://small does not fit ModuleDict.*\n.*backbone'):
        fit_around_backbone(network, load_from_package('icconv_mm://small'), 'icconv_mm://small')


@pytest.mark.slow
def test_a_training_starts_from_the_detector(tmp_path, weights_folder, capsys):
    """One line says which modules have other classes, and nothing warns of them; the resumed run loads its own."""
    pytest.importorskip('mmdet')
    weights = fill(weights_folder)[DETECTOR]
    data, run = labelled.voc(tmp_path / 'data'), tmp_path / 'run'
    command = ['train', str(data), '--work-dir', str(run), '--size', '64', '--backbone', 'small', '--epochs']
    commands.main([*command, '1'])
    printed = capsys.readouterr()
    (note,) = re.findall(r'weights: icconv_mm://small_detection for all of the network but (.*), which', printed.out)
    assert 'roi_head' in note.split(', ') and 'do not match exactly' not in printed.out + printed.err
    state = torch.load(run / 'epoch_1.pth', weights_only=False)['state_dict']
    for key in ('backbone.layer4.1.conv2.weight', 'neck.lateral_convs.1.conv.weight', 'rpn_head.rpn_conv.weight'):
        assert (state[key] - weights[key]).abs().max() < 0.01, key  # one step of AdamW
    commands.main([*command, '2', '--resume'])
    printed = capsys.readouterr().out
    assert 'for all of the network' not in printed and (run / 'epoch_2.pth').is_file()


@pytest.mark.parametrize('classes', [1, 3])
def test_corrections_of_boxes_serve_every_class(classes):
    box_head = torch.nn.ModuleDict(dict(fc_reg=torch.nn.Linear(5, 4 * classes)))
    network = torch.nn.ModuleDict(dict(roi_head=torch.nn.ModuleDict(dict(bbox_head=box_head))))
    weight, bias = torch.rand(4, 5), torch.rand(4)
    content = {'roi_head.bbox_head.fc_reg.weight': weight, 'roi_head.bbox_head.fc_reg.bias': bias}
    checkpoint = dict(state_dict=content)
    assert fit_around_backbone(network, checkpoint, 'a.pth') == []
    network.load_state_dict(checkpoint['state_dict'])
    x = torch.rand(2, 5)
    boxes = box_head['fc_reg'](x).unflatten(1, (classes, 4))
    for number in range(classes):
        torch.testing.assert_close(boxes[:, number], x @ weight.T + bias)
