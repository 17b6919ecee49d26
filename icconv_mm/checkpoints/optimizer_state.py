"""Compares the optimizer's state in a checkpoint with the optimizer that goes on with it.

torch checks numbers of groups and parameters alone: it gives a state of another size to its kernels, of which the fused
ones read and write past the end, and takes every option from the file.
"""

import copy
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from icconv_mm.checkpoints.matching import float_array, in_words
from icconv_mm.checkpoints.metadata import mapping
from icconv_mm.errors import InputError, short
from icconv_mm_runtime.finite import is_finite

_OF_KERNELS = ('params', 'param_names', 'fused', 'foreach', 'capturable', 'differentiable')


def match_optimizer(
    wrapper: OptimWrapper,
    state: Any,
    scheduled: Collection[str],
    name: str = 'optimizer',
    is_sharded: bool = False,
) -> list[str]:
    """Checks the state of an optimizer, and puts the options of this run into it.

    Args:
        wrapper: The wrapper of the optimizer of this run.
        state: Its state in a checkpoint; changed in place.
        scheduled: Names of options that a schedule changes (``'lr'``): their values are those of the checkpoint.
        name: Location of the state in errors.
        is_sharded: Whether the parameters of this run are shards, so that their states have other shapes (FSDP).

    Returns:
        The options that the checkpoint had otherwise, as ``'weight_decay = 0.1 (0.2 in the checkpoint)'``.

    Raises:
        InputError: The state is of other parameters or another optimizer, or is not finite.
    """
    state, optimizer = mapping(state, name), wrapper.optimizer
    of_rank = optimizer.optim if isinstance(optimizer, ZeroRedundancyOptimizer) else optimizer  # holds the states
    states, groups = mapping(state.get('state'), f'{name}.state'), state.get('param_groups')
    if not isinstance(groups, list) or len(groups) != len(optimizer.param_groups):
        sizes = f'{len(groups)} groups' if isinstance(groups, list) else in_words(groups)
        raise InputError(f'{name}.param_groups is {sizes}, the optimizer of this run has {len(optimizer.param_groups)}')
    changed: dict[str, None] = {}
    for number, (group, parameters) in enumerate(zip(groups, optimizer.param_groups)):
        location = f'{name}.param_groups[{number}]'
        changed.update(dict.fromkeys(_take_options(mapping(group, location), parameters, scheduled, location)))
        if is_sharded:
            continue
        numbers = group.get('params')
        if not isinstance(numbers, list) or any(type(number) is not int for number in numbers):
            raise InputError(f'{location}.params is {in_words(numbers)}, expected a list of integers')
        if len(numbers) != len(parameters['params']):
            raise InputError(
                f'{location} has {len(numbers)} parameters, that of this run has {len(parameters["params"])}'
            )
        expected: dict[torch.Size, dict[str, Any] | None] = {}
        for index, parameter in zip(numbers, parameters['params']):
            if sizes := states.get(index):
                where, shape = f'{name}.state[{index}]', parameter.shape
                if shape not in expected:
                    state_of_rank = of_rank.state.get(parameter)  # as Adagrad's, from the start
                    expected[shape] = state_of_rank or _state_after_a_step(of_rank, parameters, parameter)
                _check_state(mapping(sizes, where), expected[shape], where)
    for key, sizes in states.items() if is_sharded else ():
        _check_state(mapping(sizes, f'{name}.state[{key}]'), None, f'{name}.state[{key}]')
    base = getattr(wrapper, 'base_param_settings', None)
    if base is None or 'base_param_settings' not in state:
        state.pop('base_param_settings', None)
    else:
        _take_options(mapping(state['base_param_settings'], name), base, scheduled, f'{name}.base_param_settings')
    return list(changed)


def _take_options(
    group: dict[str, Any], expected: Mapping[str, Any], scheduled: Collection[str], location: str
) -> list[str]:
    """Replaces the options of a group by this run's, but for scheduled ones; returns those that differ."""
    changed = []
    for key, value in expected.items():
        former = group.get(key, value)
        if key == 'params':
            continue
        if key.removeprefix('initial_') in scheduled:
            numbers = former if isinstance(former, (list, tuple)) else [former]
            if not all(type(number) in (int, float) and is_finite(number) and number >= 0 for number in numbers):
                raise InputError(f'{location}.{key} is {short(former)}, expected a finite number from 0 on')
            if type(former) not in (int, float) and len(numbers) != len(value):
                raise InputError(f'{location}.{key} is {short(former)}, expected {len(value)} numbers')
            group[key] = former
            if key.startswith('initial_') and former != value:
                what = f'{key.removeprefix("initial_")} scheduled from {short(former)}'
                changed.append(f'{what}, as in the checkpoint (the config has {short(value)})')
            continue
        group[key] = value
        if key not in _OF_KERNELS and not _is_equal(former, value):
            changed.append(f'{key} = {short(value)} ({short(former)} in the checkpoint)')
    for key in group.keys() - expected.keys():
        del group[key]
    return changed


def _is_equal(former: Any, value: Any) -> bool:
    if isinstance(value, (list, tuple)) and isinstance(former, (list, tuple)):
        return list(former) == list(value)
    return type(former) in (bool, int, float, str, type(None)) and former == value


def _state_after_a_step(optimizer: Optimizer, group: dict[str, Any], parameter: Tensor) -> dict[str, Any] | None:
    """Returns the state that an optimizer keeps of a parameter; None if that cannot be found out."""
    probe = copy.copy(optimizer)  # without its hooks
    gradient = torch.zeros_like(parameter, requires_grad=True)
    gradient.grad = torch.zeros_like(parameter)
    probe.state, probe.param_groups = defaultdict(dict), [{**group, 'params': [gradient]}]
    try:
        probe.step()
    except Exception:  # of any optimizer, such as one that evaluates the loss itself
        return None
    return probe.state[gradient]


def _check_state(state: dict[str, Any], expected: dict[str, Any] | None, location: str) -> None:
    """Raises InputError unless a parameter's state is like the one expected; drops what no option asks for."""
    is_used = any(value is not None for value in state.values())
    for key, value in list(state.items()):
        values = [value] if type(value) in (int, float) else float_array(value)
        if values is not None and not is_finite(values):
            raise InputError(f'{location}.{key} has NaN or infinite values: take an earlier checkpoint')
        if expected is not None and (value is None or key not in expected):
            del state[key]
    for key, expected_value in (expected or {}).items() if is_used else ():
        if expected_value is None:
            continue
        if key not in state:
            raise InputError(f'{location} has no {key}: it is of another optimizer, or of other options')
        value = state[key]
        if not isinstance(expected_value, Tensor):
            is_alike = (
                type(value) in (int, float)
                if type(expected_value) in (int, float)
                else type(value) is type(expected_value)
            )
        elif isinstance(value, Tensor):
            is_alike = (
                value.shape == expected_value.shape and value.is_floating_point() == expected_value.is_floating_point()
            )
            is_alike = (
                is_alike and value.is_complex() == expected_value.is_complex() and value.layout == expected_value.layout
            )
        else:
            is_alike = expected_value.dim() == 0 and type(value) in (int, float)  # of an earlier torch
        if not is_alike:
            raise InputError(f'{location}.{key} is {_described(value)}, expected {_described(expected_value)}')


def _described(value: Any) -> str:
    return f'{value.dtype} {list(value.shape)}' if isinstance(value, Tensor) else in_words(value)
