"""Everything that a config counts in epochs or iterations follows the length of a training."""

import importlib
import inspect
import pkgutil
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.hooks import Hook

from icconv_mm.app.runs import lengths
from icconv_mm.app.runs.lengths import set_length

LIBRARIES = (
    'mmengine.hooks',
    'mmdet.engine.hooks',
    'mmseg.engine.hooks',
    'mmpose.engine.hooks',
    'mmpretrain.engine.hooks',
)


def config(*hooks, **loop):
    return Config(dict(train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=300, **loop), custom_hooks=list(hooks)))


@pytest.mark.parametrize(
    ('hook', 'key', 'expected'),
    [
        (dict(type='EMAHook', begin_epoch=150), 'begin_epoch', 6),
        (
            dict(type='mmpose.RTMOModeSwitchHook', epoch_attributes={280: {'a.b': 1}, 0: {}}),
            'epoch_attributes',
            {11: {'a.b': 1}, 0: {}},
        ),
        (dict(type='PipelineSwitchHook', switch_epoch=280), 'switch_epoch', 11),
        (
            dict(type='SwitchRecipeHook', schedule=[dict(action_epoch=100, loss=1)]),
            'schedule',
            [dict(action_epoch=4, loss=1)],
        ),
        (dict(type='YOLOXModeSwitchHook'), 'num_last_epochs', 1),  # 15 by default
        (dict(type='YOLOXModeSwitchHook', num_last_epochs=100), 'num_last_epochs', 4),
        (dict(type='YOLOXPoseModeSwitchHook', num_last_epochs=50), 'num_last_epochs', 2),
        (dict(type='YOLOv5ParamSchedulerHook', max_epochs=300, warmup_epochs=25), 'max_epochs', 12),
        (dict(type='WarmupParamHook', warmup_epochs=50), 'warmup_epochs', 2),
        (dict(type='icconv_mm.LastEpochsHook', epochs=75, pipeline=[]), 'epochs', 75),
        (dict(type='CheckpointHook', interval=100), 'interval', 4),
        (dict(type='CheckpointHook', interval=10), 'interval', 1),
        (dict(type='CheckpointHook', interval=-1), 'interval', -1),
        (dict(type='LoggerHook', interval=50), 'interval', 50),
    ],
)
def test_counts_of_hooks(hook, key, expected):
    cfg = config(hook)
    set_length(cfg, epochs=12)
    assert cfg.custom_hooks[0][key] == expected


def test_counts_of_the_loop_and_of_heads():
    cfg = config(val_begin=100, val_interval=50, dynamic_intervals=[(275, 1)])
    cfg.model = dict(bbox_head=dict(type='TOODHead'), train_cfg=dict(initial_epoch=100))
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=50))
    set_length(cfg, epochs=12)
    assert (cfg.train_cfg.val_begin, cfg.train_cfg.val_interval) == (4, 2)
    assert list(map(tuple, cfg.train_cfg.dynamic_intervals)) == [(11, 1)]
    assert cfg.model.train_cfg.initial_epoch == 4 and cfg.default_hooks.checkpoint.interval == 2


def test_iterations_that_models_count():
    """mmdet's BoxInst raises its pairwise loss in 10,000 iterations, whether its config says so or not."""
    cfg = config()
    heads = [
        dict(type='BoxInstMaskHead'),
        dict(type='mmdet.BoxInstMaskHead', warmup_iters=500),
        dict(type='FCNMaskHead'),
    ]
    cfg.model = dict(heads=heads, plugins=[dict(type='DropBlock')])
    set_length(cfg, epochs=30)
    assert [head.get('warmup_iters') for head in cfg.model.heads] == [1000, 50, None]
    assert cfg.model.plugins[0].warmup_iters == 200


def test_other_hooks_that_may_count_are_named(monkeypatch):
    said = []
    monkeypatch.setattr('icconv_mm.app.runs.lengths.print_log', lambda line, *_: said.append(line))
    cfg = config(dict(type='Mine', start_epoch=5, is_iter=True, name='a', interval=7), dict(type='EMAHook'))
    set_length(cfg, epochs=12)
    assert said == [
        'Mine.start_epoch = 5, Mine.interval = 7 may count the epochs of a training of 300, and stay as they are: '
        '--cfg-options changes them'
    ]
    said.clear()
    set_length(config(dict(type='Mine', start_epoch=5)), epochs=300)
    set_length(config(dict(type='EMAHook'), dict(type='CheckInvalidLossHook', interval=5)), epochs=12)
    assert said == []


@pytest.mark.parametrize('package', LIBRARIES)
def test_the_table_has_all_hooks_of_the_libraries_that_count(package):
    module = pytest.importorskip(package)
    for info in pkgutil.iter_modules(module.__path__, f'{module.__name__}.'):
        for name, kind in vars(importlib.import_module(info.name)).items():
            if inspect.isclass(kind) and issubclass(kind, Hook) and kind.__module__ == info.name:
                options = inspect.signature(kind.__init__).parameters.values()
                counted = [
                    option.name
                    for option in options
                    if lengths._counts(option.name, option.default) or option.name == 'switch_epoch'
                ]
                assert not counted or name in lengths.COUNTED or name in lengths.STAYING, (name, counted)


@pytest.mark.parametrize(
    ('key', 'value', 'done', 'length', 'expected'),
    [
        ('switch_epoch', 50, 10, 60, 30),
        ('switch_epoch', 50, 40, 60, 40),  # its new time is over: at once
        ('switch_epoch', 5, 10, 60, 5),  # it has happened
        ('epoch_attributes', {50: 1, 5: 2}, 10, 60, {30: 1, 5: 2}),
    ],
)
def test_a_running_training_of_another_length(key, value, done, length, expected):
    kind = {'switch_epoch': 'PipelineSwitchHook', 'epoch_attributes': 'RTMOModeSwitchHook'}[key]
    hook = type(kind, (SimpleNamespace,), {})(**{key: value})
    lengths.scale_running(hook, length / 100, done, length)
    assert getattr(hook, key) == expected


@pytest.mark.parametrize(('last', 'done', 'length', 'expected'), [(20, 10, 50, 10), (20, 45, 50, 5), (20, 90, 95, 20)])
def test_last_epochs_of_a_running_training(last, done, length, expected):
    hook = type('YOLOXModeSwitchHook', (SimpleNamespace,), {})(num_last_epochs=last)
    lengths.scale_running(hook, length / 100, done, length)
    assert hook.num_last_epochs == expected
