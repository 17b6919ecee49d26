"""Whether a run can continue from what a checkpoint says about it: checked before mmengine takes it over.

mmengine sets counters, schedules and file names to what the file holds. From a stranger's file, that would run the
Python code under ``meta.config``, delete whatever file is called the best checkpoint, or wait for iteration 10**12.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from icconv_mm.checkpoints.matching import in_words
from icconv_mm.checkpoints.metadata import mapping, meta_of
from icconv_mm.checkpoints.reader.log_buffers import HistoryBuffer
from icconv_mm.errors import InputError

_MAX_SEED = 2**32 - 1
_NUMBERS = (int, float, bool)


def seed_of(checkpoint: Any) -> int | None:
    """The seed of the run that wrote a checkpoint, if it is known.

    Raises:
        InputError: It is no seed.
    """
    seed = meta_of(checkpoint).get('seed')
    return None if seed is None else _number(seed, 'meta.seed', _MAX_SEED)


def check_progress(checkpoint: Any, max_epochs: int | None, max_iters: int | None) -> None:
    """Raise InputError unless ``meta`` says where in a run of this length a checkpoint stands.

    Args:
        checkpoint: What was read from the file.
        max_epochs: Of an epoch-based run, else None.
        max_iters: Of an iteration-based run, else None.
    """
    meta = meta_of(checkpoint)
    for key, most in (('epoch', max_epochs), ('iter', max_iters)):
        if key not in meta:
            raise InputError(f'it has no meta.{key}, so that no run can continue from it')
        _number(meta[key], f'meta.{key}', 2**40 if most is None else most)
    seed_of(checkpoint)


def check_message_hub(checkpoint: Mapping[str, Any], folders: Sequence[Path]) -> list[str]:
    """Raise InputError unless the logs are logs; leave out best checkpoints that lie elsewhere: they would be deleted.

    Args:
        checkpoint: What was read from the file; changed in place.
        folders: Those of this run: mmengine deletes the best checkpoint so far when there is a better one.

    Returns:
        The paths that were left out.
    """
    hub = mapping(checkpoint.get('message_hub'), 'message_hub')
    for key, value in mapping(hub.get('log_scalars'), 'message_hub.log_scalars').items():
        if not isinstance(value, HistoryBuffer):
            raise InputError(f'message_hub.log_scalars[{key!r:.60}] is {in_words(value)}, expected a HistoryBuffer')
    for key, value in mapping(hub.get('resumed_keys'), 'message_hub.resumed_keys').items():
        if not isinstance(value, bool):
            raise InputError(f'message_hub.resumed_keys[{key!r:.60}] is {value!r:.60}, expected True or False')
    info = mapping(hub.get('runtime_info'), 'message_hub.runtime_info')
    kept = info.get('keep_ckpt_ids', [])
    if not isinstance(kept, list) or any(type(each) is not int for each in kept):
        raise InputError(f'message_hub.runtime_info.keep_ckpt_ids is {kept!r:.60}, expected a list of integers')
    roots = [folder.resolve() for folder in folders]
    best = {key: value for key, value in info.items() if str(key).startswith('best_ckpt')}
    for key, value in list(best.items()):
        if not isinstance(value, str):
            raise InputError(f'message_hub.runtime_info.{key} is {value!r:.60}, expected a path')
        if any(Path(value).resolve().is_relative_to(root) for root in roots):
            del best[key]
    for key in best:
        del info[key]
    return list(best.values())


def check_optimizer(state: Any, optimizer: torch.optim.Optimizer, name: str = 'optimizer') -> None:
    """Raise InputError unless a state is one of this optimiser: as many groups, parameters and values of each."""
    groups = mapping(state, name).get('param_groups')
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        found = len(groups) if isinstance(groups, list) else in_words(groups)
        raise InputError(f'{name}.param_groups: found {found}, expected {len(optimizer.param_groups)} groups')
    shapes: dict[Any, torch.Size] = {}
    for i, (group, own) in enumerate(zip(groups, optimizer.param_groups)):
        where = f'{name}.param_groups[{i}]'
        members = mapping(group, where).get('params')
        if not isinstance(members, list) or len(members) != len(own['params']):
            raise InputError(f'{where}.params: expected {len(own["params"])} parameters, found {_count(members)}')
        if any(type(member) is not int for member in members):
            raise InputError(f'{where}.params: expected the numbers of parameters')
        shapes.update(zip(members, (parameter.shape for parameter in own['params'])))
        for key, value in own.items():
            if key != 'params' and type(value) in _NUMBERS and not isinstance(group.get(key, value), _NUMBERS):
                raise InputError(f'{where}.{key} is {in_words(group[key])}, expected a number')
    for number, values in mapping(state.get('state'), f'{name}.state').items():
        for key, value in mapping(values, f'{name}.state[{number!r:.40}]').items():
            if not isinstance(value, torch.Tensor) or value.dim() == 0 or number not in shapes:
                continue
            if value.shape != shapes[number]:
                raise InputError(
                    f'{name}.state[{number}].{key} has the shape {list(value.shape)}, its parameter '
                    f'{list(shapes[number])}'
                )


def check_schedulers(states: Any, schedulers: Sequence[Any], name: str = 'param_schedulers') -> None:
    """Raise InputError unless these are states of these schedules; mmengine takes any for attributes of theirs."""
    if not isinstance(states, list):
        raise InputError(f'{name} is {in_words(states)}, expected a list')
    for i, (state, scheduler) in enumerate(zip(states, schedulers)):
        own = scheduler.state_dict()
        for key, value in mapping(state, f'{name}[{i}]').items():
            if key not in own:
                raise InputError(f'{name}[{i}] has {key!r:.60}, which a {type(scheduler).__name__} has not')
            if not _alike(value, own[key]):
                raise InputError(f'{name}[{i}].{key} is {value!r:.60}, expected something like {own[key]!r:.60}')


def _alike(value: Any, own: Any) -> bool:
    if own is None or value is None:
        return isinstance(value if own is None else own, (*_NUMBERS, str, type(None)))
    if isinstance(own, _NUMBERS):
        return isinstance(value, _NUMBERS)
    if isinstance(own, (list, tuple)):
        return isinstance(value, (list, tuple)) and len(value) == len(own) and all(map(_alike, value, own))
    return isinstance(value, type(own))


def _number(value: Any, name: str, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise InputError(f'{name} is {value!r:.40}, expected a number from 0 to {most}')
    return value


def _count(value: Any) -> str:
    return str(len(value)) if isinstance(value, (list, tuple)) else in_words(value)
