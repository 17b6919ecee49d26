"""The schedule of every recipe, and of the configs that are written, in trainings of any length, fresh and resumed."""

import math
from copy import deepcopy

import pytest

pytest.importorskip('mmengine')

import labelled
from config_utils import CONFIGS, read_config
from schedules import RATE, Training

from icconv_mm.app.runs.lengths import set_length
from icconv_mm.app.training.own_data import config_for
from icconv_mm.config_tree import as_list, kind_of

EPOCH = 100  # iterations
LENGTHS = (1, 2, 10, 100)
RECIPES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
seen = set()  # many recipes have the same schedule


def training_of(cfg, length, epoch):
    """A training of a config with another length, without its model."""
    cfg = deepcopy(cfg)
    unit = 'epochs' if 'max_epochs' in cfg.train_cfg else 'iters'
    set_length(cfg, **{unit: length})
    schedulers = cfg.param_scheduler
    return Training([scheduler.to_dict() for scheduler in as_list(schedulers)], **{unit: length}, epoch=epoch)


def end_of(cfg, training, iterations):
    """The most that the rate may be in the last iteration: what is left of the decay one step before its end."""
    most = RATE
    for decay, built in zip(as_list(cfg.param_scheduler), training.param_schedulers):
        kind, steps = kind_of(decay), built.end - built.begin
        least = decay.get('eta_min') or RATE * decay.get('eta_min_ratio', 0)
        if kind == 'MultiStepLR':
            length = training.max_epochs if built.by_epoch else iterations
            most *= 0.1 ** sum(step < length for step in built.milestones.elements())
        elif kind == 'PolyLR' and iterations > 1:
            most = least + RATE * (2 / iterations) ** decay['power']
        elif kind == 'CosineAnnealingLR' and iterations > 1:
            most = least + RATE * (1 + math.cos(math.pi * (steps - 1) / built.T_max)) / 2
    return most


def check(cfg, length, epoch=EPOCH, reached=1 - 1e-9):
    """It reaches its base value and its end; resumed at twice the length, it goes on as from the start."""
    is_long = length is None
    length = (cfg.train_cfg.get('max_epochs') or cfg.train_cfg.max_iters) if is_long else length
    training = training_of(cfg, length, epoch)
    rates = [rate for (rate,) in training.run()]
    assert max(rates) >= RATE * reached
    assert rates[-1] <= end_of(cfg, training, len(rates)) * (1 + 1e-9)
    if length > 1:
        first = training_of(cfg, length // 2, epoch)
        done = len(first.run())
        resumed = training_of(cfg, length, epoch).go_on(first.save())
        assert [rate for (rate,) in resumed.run()] == rates[done:]


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
@pytest.mark.parametrize('length', [*LENGTHS, pytest.param(None, marks=pytest.mark.slow, id='full')])
def test_recipe(path, length):
    cfg = read_config(path)
    pytest.importorskip(cfg.get('default_scope') or 'mmengine')
    key = str((cfg.param_scheduler, cfg.train_cfg, length))
    if key not in seen:
        check(cfg, length)
        seen.add(key)


@pytest.mark.parametrize('length', LENGTHS)
def test_written_config(tmp_path, length):
    data = labelled.voc(tmp_path / 'data')
    quick = dict(backbone='ic_resnet18', pretrained='none', say=lambda line: None)
    cfg = config_for(data, 'detection', size=64, epochs=length, work_dir=tmp_path / 'run', **quick)
    for other in LENGTHS:
        check(cfg, other, epoch=1, reached=0.95)  # the cosine begins with the warm-up
