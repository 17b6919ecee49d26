"""Hook that makes a training go on with what mmengine's checkpoints do not hold."""

from collections.abc import Iterator
from typing import Any

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

_KEY = 'icconv_mm_state'  # in a checkpoint
_SWITCHING = ('RTMOModeSwitchHook', 'YOLOXPoseModeSwitchHook')  # whose switch happens in one epoch alone
_STORED = {'EarlyStoppingHook': ('best_score', 'wait_count')}
_KNOWN = ('mmengine.', 'icconv_mm.', 'mmdet.', 'mmseg.', 'mmpose.', 'mmpretrain.')  # of whose hooks the rest is known
_PLAIN = (bool, int, float, str, type(None))


class UnsavedStateHook(Hook):
    """Stores what a resumed training needs and mmengine does not store, and puts it back.

    Gradients that wait for further iterations (``accumulative_counts``) and the counts of early stopping come from the
    checkpoint; mmpose's hooks that switch a loss in one epoch switch it again. What else has changed since the start,
    plain attributes of other hooks and of the model's modules, is compared in the first iteration: a warning names what
    is not as it was.

    Args:
        resume: Whether the run continues from a checkpoint.
    """

    priority = 'VERY_LOW'

    def __init__(self, resume: bool = False) -> None:
        self.resume = resume
        self._stored: dict[str, Any] | None = None
        self._start: dict[str, Any] = {}
        self._is_compared = not resume

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.resume:
            self._stored = checkpoint.pop(_KEY, None) or {}

    def before_train(self, runner: Runner) -> None:
        self._start = dict(_plain_state(runner))
        if not self._stored and not self.resume:
            return
        stored = self._stored or {}
        for hook in runner.hooks:
            if type(hook).__name__ in _SWITCHING:
                for epoch in range(runner.epoch):
                    hook.before_train_epoch(_At(runner, epoch))
            for key, value in stored.get('hooks', {}).get(type(hook).__name__, {}).items():
                setattr(hook, key, value)
        gradients = stored.get('gradients', {})
        for name, parameter in _unwrapped(runner.model).named_parameters():
            if name in gradients:
                parameter.grad = gradients[name].to(parameter)
        if 'gradients' not in stored and any(map(_is_waiting, _wrappers(runner))):
            runner.logger.warning(
                'the checkpoint was written between two steps of the optimizer (accumulative_counts), and does not '
                'hold the gradient gathered until then: weights will differ from those of an uninterrupted training'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self._is_compared:
            return
        self._is_compared = True
        now = dict(_plain_state(runner))
        lost = [
            f'{name} was {value!r}, is {now[name]!r}'
            for name, value in (self._stored or {}).get('changed', {}).items()
            if name in now and now[name] != value
        ]
        if lost:
            runner.logger.warning(f'no checkpoint holds, so the training goes on without: {"; ".join(lost[:8])}')

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        changed = {name: value for name, value in _plain_state(runner) if self._start.get(name, value) != value}
        hooks = {
            kind: {key: getattr(hook, key) for key in _STORED[kind]}
            for hook in runner.hooks
            if (kind := type(hook).__name__) in _STORED
        }
        state = {'changed': changed, 'hooks': hooks}
        if any(map(_is_waiting, _wrappers(runner))) and get_world_size() == 1:  # others have gradients of their own
            parameters = _unwrapped(runner.model).named_parameters()
            state['gradients'] = {
                name: parameter.grad.detach().cpu() for name, parameter in parameters if parameter.grad is not None
            }
        if 'gradients' in state or any(state.values()):
            checkpoint[_KEY] = state


class _At:
    """A runner in another epoch."""

    def __init__(self, runner: Runner, epoch: int) -> None:
        self._runner, self.epoch = runner, epoch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


def _plain_state(runner: Runner) -> Iterator[tuple[str, Any]]:
    """Yields plain attributes of strangers' hooks, and flags and names of the model's modules, by name."""
    for hook in runner.hooks:
        kind = type(hook)
        if not kind.__module__.startswith(_KNOWN):
            yield from ((f'{kind.__name__}.{key}', value) for key, value in vars(hook).items() if type(value) in _PLAIN)
    for name, module in _unwrapped(runner.model).named_modules():
        for key, value in vars(module).items():
            if type(value) in (bool, str) and key != 'training' and not key.startswith('_'):
                yield f'{name}.{key}', value


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _wrappers(runner: Runner) -> list[OptimWrapper]:
    wrapper = runner.optim_wrapper
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def _is_waiting(wrapper: OptimWrapper) -> bool:
    """Returns whether gradients were gathered since the optimizer's last step."""
    counts = getattr(wrapper, '_accumulative_counts', 1)
    return counts > 1 and wrapper._inner_count % counts != 0
