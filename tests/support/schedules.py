"""Trainings of nothing but an optimiser and its schedulers, by mmengine's own runner and hooks."""

import logging
import tempfile

import torch
from mmengine.config import ConfigDict
from mmengine.hooks import ParamSchedulerHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from icconv_mm.app.runs.schedules import ScheduleHook, checked_schedulers
from icconv_mm.checkpoints import reading

RATE = 0.5


class Training(Runner):
    """A runner without model and data.

    Args:
        schedulers: ``param_scheduler`` of a config.
        epochs, iters: The length, in one of the two.
        epoch: Iterations of an epoch.
        optimizers: A function that makes an optimiser wrapper, or a dict of them.
        checked: Whether schedulers are built as by this package, or by mmengine alone.
    """

    def __init__(self, schedulers, *, epochs=None, iters=None, epoch=1, optimizers=None, checked=True):
        loop = object.__new__(IterBasedTrainLoop if epochs is None else EpochBasedTrainLoop)
        vars(loop).update(_epoch=0, _iter=0, dataloader=range(epoch), _max_epochs=epochs or 1)
        loop._max_iters = iters or epochs * epoch
        self._train_loop, self.cfg = loop, ConfigDict()
        self.__dict__['logger'] = logging.getLogger('schedules')
        self.optim_wrapper = (optimizers or sgd)()
        self.param_schedulers = self.build_param_scheduler(
            checked_schedulers(self, schedulers) if checked else schedulers
        )
        for wrapper in self._wrappers():
            wrapper._global_step = 0  # mmengine warns where there was no step

    def _wrappers(self):
        several = isinstance(self.optim_wrapper, OptimWrapperDict)
        return list(self.optim_wrapper.values()) if several else [self.optim_wrapper]

    def values(self, name='lr'):
        """Of all groups of all optimisers, one after the other."""
        return tuple(group[name] for wrapper in self._wrappers() for group in wrapper.optimizer.param_groups)

    def run(self, iterations=None, name='lr'):
        """The values of each iteration of the rest of the training, or of so many."""
        loop, hook, seen = self._train_loop, ParamSchedulerHook(), []
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        for _ in range(loop._max_iters - loop._iter if iterations is None else iterations):
            seen.append(self.values(name))
            loop._iter += 1
            hook.after_train_iter(self, 0)
            if by_epoch and loop._iter % len(loop.dataloader) == 0:
                loop._epoch += 1
                hook.after_train_epoch(self)
        return seen

    def save(self):
        states = self.param_schedulers
        states = (
            {name: [scheduler.state_dict() for scheduler in schedulers] for name, schedulers in states.items()}
            if isinstance(states, dict)
            else [scheduler.state_dict() for scheduler in states]
        )
        meta = dict(epoch=self._train_loop._epoch, iter=self._train_loop._iter)
        checkpoint = dict(meta=meta, optimizer=self.optim_wrapper.state_dict(), param_schedulers=states, state_dict={})
        ScheduleHook().before_save_checkpoint(self, checkpoint)
        with tempfile.NamedTemporaryFile(suffix='.pth') as file:
            torch.save(checkpoint, file.name)
            return reading.read(file.name)

    def go_on(self, checkpoint):
        """What mmengine does to resume, in its order."""
        hook = ScheduleHook(name='epoch_1.pth')
        hook.after_load_checkpoint(self, checkpoint)
        vars(self._train_loop).update(_epoch=checkpoint['meta']['epoch'], _iter=checkpoint['meta']['iter'])
        self.optim_wrapper.load_state_dict(checkpoint['optimizer'])
        current, states = self.param_schedulers, checkpoint['param_schedulers']
        pairs = (
            [(current[name], states[name]) for name in current] if isinstance(current, dict) else [(current, states)]
        )
        for schedulers, loaded in pairs:
            for scheduler, state in zip(schedulers, loaded):
                scheduler.load_state_dict(state)
        hook.before_train(self)
        return self


def sgd(*rates):
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=rate) for rate in rates or (RATE,)]
    return OptimWrapper(torch.optim.SGD(groups, lr=RATE, momentum=0.9))


def adam():
    return OptimWrapper(torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=RATE, betas=(0.9, 0.99)))


def several():
    return OptimWrapperDict(first=sgd(0.5, 0.05), second=sgd(0.1))
