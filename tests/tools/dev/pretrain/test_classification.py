"""The recipe's weights: the same each time, and the same after an interruption."""

import importlib
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip('mmengine')

from icconv_mm.backbones import ICResNet
from icconv_mm.checkpoints.reading import read
from icconv_mm.models import create_model


@pytest.fixture
def recipe(tiny):
    return importlib.import_module('classification')


@pytest.fixture
def train(recipe, tiny, tmp_path):
    """Runs the command in a folder of that name; returns what it has written."""

    def run(name, *options):
        fixed = ['--epochs', '2', '--batch', '6', '--size', '32', '--tiles', '1', *options]
        recipe.main([str(tiny), '--out', str(tmp_path / name), *fixed])
        return read(tmp_path / name / 'classifier.pth')

    return run


def assert_same(one, other):
    assert one['state_dict'].keys() == other['state_dict'].keys()
    for key, value in one['state_dict'].items():
        assert torch.equal(value, other['state_dict'][key]), key
    losses = [[row['loss'] for row in checkpoint['meta']['history']] for checkpoint in (one, other)]
    assert losses[0] == losses[1] and len(losses[0]) == 2


def test_two_runs_are_equal_and_the_seed_counts(train):
    first = train('first')
    assert_same(first, train('second'))
    other = train('other', '--seed', '1')
    assert first['meta']['history'][0]['loss'] != other['meta']['history'][0]['loss']


def test_images_side_by_side_are_classified_each(train, recipe):
    maps, classes = torch.nn.Conv2d(3, 5, 8, 8), torch.nn.Linear(5, 4)  # no cell sees two images
    network = SimpleNamespace(forward_features=maps, head=SimpleNamespace(fc=classes))
    images = torch.randn(18, 3, 32, 32)
    logits = classes(maps(images).mean((2, 3)))
    for tiles in (1, 3):
        torch.testing.assert_close(recipe.tiled_logits(network, images, tiles), logits)
    sides = ['--batch', '8', '--tiles', '2', '1']
    assert_same(train('first', *sides), train('second', *sides))
    with pytest.raises(SystemExit, match=r'--batch: expected a multiple of 4'):
        train('third', '--tiles', '2')


@pytest.mark.parametrize('step', [3, 5, 8])  # in the first epoch, at its end, in the second
def test_what_was_interrupted_ends_as_if_it_was_not(step, train, recipe, monkeypatch, capsys):
    whole, augmented, calls = train('whole'), recipe.augmented, []

    def interrupting(*arguments):
        calls.append(arguments)
        if len(calls) == step + 1:
            raise KeyboardInterrupt
        return augmented(*arguments)

    monkeypatch.setattr(recipe, 'augmented', interrupting)
    with pytest.raises(SystemExit):
        train('part', '--save-minutes', '0')
    capsys.readouterr()
    assert_same(whole, train('part', '--save-minutes', '0'))
    assert f'going on after step {step} of 10' in capsys.readouterr().out
    assert len(calls) == 11  # ten steps, one of them begun twice


def test_it_learns_and_its_weights_load(train, tiny, tmp_path, capsys):
    content = train('it', '--epochs', '12', '--lr', '.01')
    assert content['meta']['history'][-1]['top1'] > 60  # three classes
    assert re.search(r'epoch 12: loss \d\.\d{4}, top-1 \d+\.\d\d %, \d+ s', capsys.readouterr().out)
    assert content['meta']['dataset_meta']['classes'] == ['goldfish', 'bullfrog', 'n03']
    options = dict(base_channels=24, stem_channels=24, pattern='geometric_d4', align=16)
    file = str(tmp_path / 'it' / 'classifier.pth')
    network = create_model('ic_resnet18', checkpoint_path=file, num_classes=3, **options)
    assert torch.equal(network.state_dict()['head.fc.bias'], content['state_dict']['head.fc.bias'])
    backbone = ICResNet(18, **options, init_cfg=dict(type='Pretrained', checkpoint=file, prefix='backbone.'))
    backbone.init_weights()
    for key, value in backbone.state_dict().items():
        assert torch.equal(value, content['state_dict'][f'backbone.{key}']), key


def test_a_call_ended_before_the_last_state_was_saved_writes_the_weights_again(train, recipe, tmp_path, monkeypatch):
    whole, write = train('whole'), recipe.write_checkpoint

    def failing(content, path):
        if 'network' in content and content['step'] == 10:
            raise KeyboardInterrupt
        write(content, path)

    monkeypatch.setattr(recipe, 'write_checkpoint', failing)
    with pytest.raises(SystemExit):
        train('part')
    (tmp_path / 'part' / 'classifier.pth').unlink()
    monkeypatch.setattr(recipe, 'write_checkpoint', write)
    assert_same(whole, train('part'))


def test_a_backbone_that_is_not_there(train):
    with pytest.raises(SystemExit, match=r'^error: backbone: no such file: .*backbones/smal.py'):
        train('it', '--backbone', 'smal')


def test_a_folder_of_another_recipe_is_refused(train):
    train('it')
    with pytest.raises(SystemExit, match=r'error: --out: .*state.pth is of a training with epochs 2, this one has 3'):
        train('it', '--epochs', '3')


def test_images_may_be_deleted_once_they_are_packed(train, tiny):
    first = train('first')
    for part in ('train', 'val'):
        shutil.rmtree(tiny / part)
    assert_same(first, train('second'))


def test_shifts_and_flips(recipe, tiny):
    images = np.random.default_rng(1).integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    changed = recipe.augmented(images, np.random.default_rng(0))
    middle = slice(recipe.SHIFT, 32 - recipe.SHIFT)
    changes = set()
    for image, augmented in zip(images, changed, strict=True):
        for flip in (1, -1):
            source = image[:, ::flip]
            for y in range(2 * recipe.SHIFT + 1):
                for x in range(2 * recipe.SHIFT + 1):
                    part = source[y : y + 32 - 2 * recipe.SHIFT, x : x + 32 - 2 * recipe.SHIFT]
                    if np.array_equal(part, augmented[middle, middle]):
                        changes.add((flip, y, x))
                        break
    assert {flip for flip, _, _ in changes} == {1, -1} and len(changes) > 25


def test_input_is_rgb(recipe):
    images = np.zeros((1, 4, 4, 3), np.uint8)
    images[..., 2] = 255  # red
    inputs = recipe.to_input(images, 8)
    assert inputs.shape == (1, 3, 8, 8)
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    torch.testing.assert_close(inputs[0, :, 0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ('file', 'text', 'message'),
    [
        ('train/n01/n01_boxes.txt', 'a.png 1 2 3 4', r'n01_boxes.txt:1: expected 5 fields that end with a box'),
        ('val/val_annotations.txt', 'val_0.png\tn09\t0\t0\t3\t3', r'val_0.png: no training image has its class n09'),
        ('val/val_annotations.txt', 'val_99.png\tn01\t0\t0\t3\t3', r'no such file: .*val_99.png'),
        ('val/images/val_0.png', 'no image', r'val_0.png: '),
    ],
)
def test_a_fault_of_the_set_is_one_message(file, text, message, train, tiny):
    (tiny / file).write_text(text)
    with pytest.raises(SystemExit, match=f'^error: .*{message}'):
        train('it')
    assert not (tiny / 'packed').exists()
