"""A training of a given time, by a clock that its hooks advance."""

import argparse
import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from icconv_mm.app.commands import command_line
from icconv_mm.app.evaluation import report
from icconv_mm.app.runs import lengths
from icconv_mm.app.runs.begin import begin
from icconv_mm.app.runs.workers import EndingLoader
from icconv_mm.app.training.budget import Budget, BudgetHook, seconds_of
from icconv_mm.app.training.train import train
from icconv_mm.errors import ArgumentError, InputError

pytest.importorskip('mmdet')


class Clock:
    """Seconds of all steps and validations until now."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


@HOOKS.register_module(force=True)
class TickingHook(Hook):
    """Advances the clock with each iteration; after the first ``count`` ones, a step takes ``later`` seconds."""

    priority = 'HIGHEST'
    rates: list[float] = []

    def __init__(self, step, val, later=None, count=0):
        self.step, self.val, self.later, self.count = step, val, later, count

    def before_train(self, runner):
        type(self).rates = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        CLOCK.now += self.later if self.later is not None and runner.iter >= self.count else self.step
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])

    def before_val_iter(self, runner, batch_idx, data_batch=None):
        CLOCK.now += self.val


@HOOKS.register_module('HalfwayHook', force=True)
class PipelineSwitchHook(Hook):
    """Has an epoch and the name of mmdet's ``PipelineSwitchHook``."""

    def __init__(self, switch_epoch):
        self.switch_epoch = switch_epoch


@pytest.fixture
def ticking(cfg, monkeypatch):
    """The config of a run by epochs of three steps, whose validation takes three batches."""
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # it starts several compilers
    monkeypatch.setattr('os.fsync', lambda file: None)  # of each checkpoint, on a busy disk
    saving = {'type': 'CheckpointHook', 'interval': 1, 'max_keep_ckpts': 1}
    schedule = {
        'type': 'CosineAnnealingLR',
        'T_max': 10,
        'eta_min': 0.0,
        'by_epoch': True,
        'convert_to_iter_based': True,
    }

    def make(by_epoch=True, **changes):
        length = {'by_epoch': True, 'max_epochs': 10} if by_epoch else {'by_epoch': False, 'max_iters': 30}
        scheduler = (
            {**schedule} if by_epoch else {'type': 'CosineAnnealingLR', 'T_max': 30, 'eta_min': 0.0, 'by_epoch': False}
        )
        hook = {'type': 'TickingHook', 'step': 1.0, 'val': 2.0, **changes}
        config = cfg(
            default_scope='mmdet', train_cfg__by_epoch=by_epoch, param_scheduler=[scheduler], custom_hooks=[hook],
            default_hooks={'checkpoint': {**saving, 'by_epoch': by_epoch}},
        )  # fmt: skip
        config.train_cfg = {**length, 'val_interval': 1}
        config.optim_wrapper.optimizer.lr = 1e-3
        config.default_hooks.logger = {'type': 'LoggerHook', 'log_metric_by_epoch': by_epoch}
        if not by_epoch:
            config.train_dataloader.sampler.type = 'InfiniteSampler'
        return config

    return make


@pytest.mark.parametrize(
    ('text', 'seconds'), [('90s', 90), ('12m', 720), ('1h30m', 5400), ('1.5h', 5400), ('1h1m1s', 3661), (7, 7.0)]
)
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize('text', ['', '12', 'm', '-3m', '3m2h', '0s', '1e9m', 'inf', 0, -1, float('nan'), float('inf')])
def test_what_is_no_duration(text):
    with pytest.raises(ArgumentError, match='time: expected a duration such as 90s, 12m or 1h30m'):
        seconds_of(text)


@pytest.mark.parametrize(('given', 'text'), [('10m', '10m'), (600, '600.0s')])
def test_the_report_of_an_interrupted_run_goes_on_in_its_time(given, text):
    loop = SimpleNamespace(iter=3, max_iters=9)
    runner = SimpleNamespace(train_loop=loop, work_dir='run', cfg={})
    commands = dict(report._commands('c.py', 'run/epoch_1.pth', runner, False, given))
    assert commands['Continue this training:'].endswith(f'train.py c.py --work-dir run --time {text} --resume')
    assert seconds_of(text) == 600


@pytest.mark.parametrize('split', ['a', 'b'])
def test_images_that_validate_are_not_called_test_images(split):
    cfg = {f'{part}_dataloader': {'dataset': {'ann_file': file}} for part, file in (('val', 'a'), ('test', split))}
    runner = SimpleNamespace(train_loop=SimpleNamespace(iter=9, max_iters=9), work_dir='run', cfg=cfg)
    commands = dict(report._commands('c.py', 'run/epoch_1.pth', runner, False, None))
    assert ('Evaluate on the test images:' in commands) == (split == 'b')


@pytest.mark.parametrize('sides', [{'size': 416}, {'shape': (416, 320)}])
def test_a_smaller_size_is_offered(ticking, sides, tmp_path):
    run = begin(ticking())
    run.cfg.update(sides, log_level='INFO')
    train(run, time=Budget('200s', CLOCK))
    (log,) = tmp_path.glob('*/*.log')
    text = log.read_text()
    first, second, third = (text[text.index(start) :].split('\n')[0] for start in ('--time', '  --size', '  189 iter'))
    assert first == '--time 200s: 63 epochs at 416 pixels in all (1 s a step, no validation)'
    assert second.startswith('  --size 288 would give about 1') and second.endswith(' epochs')
    assert (
        third == '  189 iterations teach a network little: more time, a smaller --size or weights (--pretrained) help'
    )
    assert '10 epochs' not in text  # nothing tells the length that the config had


class Runner(SimpleNamespace):
    """A runner whose clock advances by ``step`` seconds a step and ``pause`` seconds a validation with checkpoints."""

    def __init__(self, folder, seconds, steps, step, pause, guess=1.0, epochs=300):
        self.clock = Clock()
        self.own = Budget(seconds, self.clock)
        loader = EndingLoader(range(2 * steps), batch_size=2)
        loop = object.__new__(EpochBasedTrainLoop)
        vars(loop).update(_max_epochs=epochs, _max_iters=0, val_interval=1, dataloader=loader)
        model = SimpleNamespace(eval=bool, train=bool, val_step=self.validate)
        super().__init__(
            hooks=[], train_loop=loop, val_loop=SimpleNamespace(dataloader=range(40)), work_dir=str(folder), step=step,
            logger=logging.getLogger('plans'), param_schedulers=None, pause=pause, iter=0, epoch=0, validations=0,
            model=model, guess=guess,
        )  # fmt: skip

    def validate(self, batch):
        self.clock.now += self.guess * self.pause / 40

    def train(self):
        hook, loop = BudgetHook(self.own, Config()), self.train_loop
        hook.before_train(self)
        while self.epoch < loop.max_epochs:
            for number, _ in enumerate(loop.dataloader):
                self.clock.now += self.step
                hook.after_train_iter(self, number)
                self.iter += 1
            hook.after_train_epoch(self)
            self.epoch += 1
            if self.epoch % loop.val_interval == 0 or self.epoch == loop.max_epochs:
                self.clock.now += self.pause
                hook.after_val(self)
                self.validations += 1


@pytest.mark.parametrize('pause', [0.5, 20.0, 100.0])
@pytest.mark.parametrize('seconds', [200.0, 720.0, 3600.0])
def test_a_plan_fits_and_leaves_less_than_an_epoch(pause, seconds, tmp_path):
    runner = Runner(tmp_path, seconds, 50, 0.1, pause)
    runner.train()
    assert runner.validations <= 22 and runner.validations * pause <= max(0.25 * seconds, pause)
    assert 0.85 * seconds - 2 * pause - 20 < seconds - runner.own.left <= seconds


@pytest.mark.parametrize('seed', range(60))
def test_plans_that_change_keep_to_the_time(seed, tmp_path):
    """With validations of any share of it, which are estimated at first, and each of which a change may add."""
    random = np.random.default_rng(seed)
    seconds, step = float(random.choice([300, 900, 1800])), random.uniform(0.05, 0.6)
    steps, pause = int(random.integers(5, 200)), random.uniform(1, 0.2 * seconds)
    runner = Runner(tmp_path, seconds, steps, step, pause, random.choice([0.4, 1, 1.3]))
    runner.clock.now += 10
    runner.train()
    assert runner.own.left > -0.05 * seconds
    assert runner.own.left < 0.3 * seconds + 2 * pause + steps * step


@pytest.mark.parametrize('seconds', [60.0, 180.0])
def test_an_epoch_that_is_longer_than_the_time_ends_in_it(seconds, tmp_path):
    runner = Runner(tmp_path, seconds, 5000, 1.0, 3.0)
    runner.train()
    assert runner.epoch == 1 and runner.iter == len(runner.train_loop.dataloader) == runner.train_loop.max_iters
    assert 0.5 * seconds < seconds - runner.own.left <= seconds
    slow = Runner(tmp_path, seconds, 5000, 25.0, 3.0)  # of which 13 take longer than all the time
    slow.train()
    assert slow.epoch == 1 and slow.iter * 25 < seconds and slow.own.left > -30


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'later': 2.0},  # slower than measured from its first step
        {'later': 3.0, 'count': 60},
        {'later': 0.5},  # faster
    ],
)
def test_a_training_keeps_to_its_time(ticking, tmp_path, monkeypatch, by_epoch, changes):
    """It validates and saves at its end, to which the learning rate has fallen; a pipeline switches on the way."""
    monkeypatch.setitem(lengths.COUNTED, 'HalfwayHook', {'switch_epoch': None})
    given, run = Budget('300s', CLOCK), begin(ticking(by_epoch, **changes))
    half = run.cfg.train_cfg['max_epochs' if by_epoch else 'max_iters'] // 2
    switch = dict(type='HalfwayHook', switch_epoch=half)
    run.cfg.custom_hooks = [*run.cfg.get('custom_hooks', ()), switch]
    runner = train(run, time=given)
    (switched,) = (hook.switch_epoch for hook in runner.hooks if isinstance(hook, PipelineSwitchHook))
    assert 0.75 * 300 < 300 - given.left <= 300
    done = runner.epoch if by_epoch else runner.iter
    assert done == (runner.max_epochs if by_epoch else runner.max_iters)
    if changes.get('count') == 60:  # it had switched before the training became shorter
        assert done / 2 < switched < done
    else:
        assert switched == pytest.approx(done / 2, rel=0.05)
    name = f'{"epoch" if by_epoch else "iter"}_{done}.pth'
    assert (tmp_path / 'last_checkpoint').read_text().endswith(name) and (tmp_path / name).is_file()
    rates = TickingHook.rates
    assert len(rates) == runner.iter and rates[0] == pytest.approx(1e-3) and rates[-1] < 0.01 * rates[0]
    ((log,),) = [list(tmp_path.glob('*/vis_data/scalars.json'))]
    steps = [entry['step'] for entry in map(json.loads, log.read_text().splitlines()) if 'lr' not in entry]
    assert steps[-1] == done and len(steps) <= 25


def test_a_resumed_training_has_what_is_left(ticking, tmp_path):
    first = Budget('100s', CLOCK)
    runner = train(begin(ticking()), time=first)
    spent = json.loads((tmp_path / 'time.json').read_text())['seconds']
    assert spent == pytest.approx(100 - first.left, abs=0.1)
    second = Budget('300s', CLOCK)
    resumed = train(begin(ticking()), time=second, resume=True)
    assert 0.75 * 300 < 300 - second.left <= 300
    assert resumed.epoch == resumed.max_epochs > runner.epoch
    with pytest.raises(ArgumentError, match=r'time: .* has taken .* of 100s: give more'):
        train(begin(ticking()), time=Budget('100s', CLOCK), resume=True)


@pytest.mark.parametrize('other', ['epochs', 'iters'])
def test_one_length(other, tmp_path):
    args = argparse.Namespace(config=[str(tmp_path / 'c.py')], epochs=None, iters=None, time='12m')
    setattr(args, other, 3)
    with pytest.raises(ArgumentError, match=f'time: the length is given by --{other} as well'):
        command_line.read_training(args)


def test_several_processes_have_no_budget(ticking, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    with pytest.raises(ArgumentError, match='time: the length is chosen by the steps of one process'):
        train(begin(ticking()), time='12m')


@pytest.mark.parametrize(
    'text',
    [
        '{"seconds": 1, "length": -2}',
        '{"seconds": Infinity}',
        '{"seconds": NaN}',
        '{"seconds": -1}',
        '{"seconds": "x"}',
        '[' * 5000,
    ],
)
def test_a_damaged_time_is_told(tmp_path, text):
    (tmp_path / 'time.json').write_text(text)
    with pytest.raises(InputError, match=r'time\.json is damaged, .*: delete it'):
        Budget('1m').resume(Config(dict(work_dir=str(tmp_path))))
