"""A resumed training has what mmengine's checkpoints do not hold."""

from contextlib import suppress

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.hooks import EarlyStoppingHook, Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from icconv_mm.app.training.hooks.unsaved_state import UnsavedStateHook

SAMPLER = dict(type='DefaultSampler', shuffle=False)


class Numbers(BaseDataset):
    def load_data_list(self):
        return [dict(number=float(number)) for number in range(5)]


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.head.mode = 'a'
        nn.init.ones_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, number, sample_idx, mode='loss'):
        return dict(loss=(self.head(torch.tensor(number)[:, None]) ** 2).mean())


class RTMOModeSwitchHook(Hook):
    """Switches in one epoch alone, as mmpose's of this name."""

    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            runner.model.head.mode = 'b'


class Counting(Hook):
    def __init__(self):
        self.count, self.others = 0, []

    def after_train_iter(self, runner, *_, **__):
        self.count += 1
        self.others.append(1)


class Switching(RTMOModeSwitchHook):
    """One that is not known."""


class Ending(Hook):
    def __init__(self, epoch):
        self.epoch = epoch

    def before_train_epoch(self, runner):
        if runner.epoch == self.epoch:
            raise KeyboardInterrupt


def trained(folder, epochs, resume=False, counts=2, hooks=()):
    """Trains until an epoch, of a training of four."""
    optimizer = dict(type='SGD', lr=0.01, momentum=0.9)
    runner = Runner(
        Line(), str(folder), dict(batch_size=1, sampler=SAMPLER, dataset=Numbers()),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=4), resume=resume,
        optim_wrapper=dict(type='OptimWrapper', accumulative_counts=counts, optimizer=optimizer),
        default_scope='mmengine', experiment_name=f'{folder.name}_{epochs}_{resume}', log_level='WARNING',
    )  # fmt: skip
    for hook in (*hooks, UnsavedStateHook(resume), Ending(epochs)):
        runner.register_hook(hook)
    said = []
    runner.logger.warning = said.append
    with suppress(KeyboardInterrupt):
        runner.train()
    return runner, [line for line in said if 'param_schedulers' not in line]


@pytest.mark.parametrize('counts', [1, 2, 3])
def test_gathered_gradients(tmp_path, counts):
    """Five iterations an epoch."""
    whole, _ = trained(tmp_path / 'whole', 4, counts=counts)
    for epochs in (1, 2, 4):
        part, said = trained(tmp_path / 'part', epochs, resume=epochs > 1, counts=counts)
        assert said == []
    torch.testing.assert_close(part.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


def test_a_checkpoint_without_the_gathered_gradient_is_told(tmp_path):
    trained(tmp_path, 1)
    path = tmp_path / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    assert set(content.pop('icconv_mm_state')['gradients']) == {'head.weight', 'head.bias'}
    torch.save(content, path)
    _, said = trained(tmp_path, 2, resume=True)
    assert len(said) == 1 and 'does not hold the gradient gathered until then' in said[0]


def test_a_clean_training_stores_nothing_more(tmp_path):
    trained(tmp_path, 1, counts=1)
    assert 'icconv_mm_state' not in torch.load(tmp_path / 'epoch_1.pth', weights_only=False)


def test_a_mode_that_is_switched_once(tmp_path):
    trained(tmp_path, 2, hooks=[RTMOModeSwitchHook()])
    runner, said = trained(tmp_path, 3, resume=True, hooks=[RTMOModeSwitchHook()])
    assert runner.model.head.mode == 'b' and said == []


def test_state_of_other_hooks_is_named(tmp_path):
    trained(tmp_path, 2, counts=1, hooks=[Switching(), Counting()])
    _, said = trained(tmp_path, 3, resume=True, counts=1, hooks=[Switching(), Counting()])
    assert said == [
        "no checkpoint holds, so the training goes on without: Counting.count was 10, is 0; head.mode was 'b', is 'a'"
    ]


def test_early_stopping(tmp_path):
    class Stopping(EarlyStoppingHook):
        pass

    Stopping.__name__ = 'EarlyStoppingHook'
    hook = Stopping(monitor='loss', rule='less')
    hook.best_score, hook.wait_count = 0.25, 3
    trained(tmp_path, 1, counts=1, hooks=[hook])
    again = Stopping(monitor='loss', rule='less')
    trained(tmp_path, 2, resume=True, counts=1, hooks=[again])
    assert (again.best_score, again.wait_count) == (0.25, 3)
