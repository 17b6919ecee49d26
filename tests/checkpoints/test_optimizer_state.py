"""The state of an optimizer in a checkpoint fits that of the run, whose options are used."""

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmengine.optim.optimizer import ZeroRedundancyOptimizer
from torch import nn

from icconv_mm.checkpoints.optimizer_state import match_optimizer
from icconv_mm.errors import InputError

KINDS = {
    'SGD': lambda params, **options: torch.optim.SGD(params, 0.1, momentum=0.9, **options),
    'AdamW': lambda params, **options: torch.optim.AdamW(params, 0.1, **options),
    'amsgrad': lambda params, **options: torch.optim.Adam(params, 0.1, amsgrad=True, **options),
    'RMSprop': lambda params, **options: torch.optim.RMSprop(params, 0.1, momentum=0.1, **options),
    'Adagrad': lambda params, **options: torch.optim.Adagrad(params, 0.1, **options),
}


def wrapper(kind='AdamW', **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(4, 2))
    optim_wrapper = OptimWrapper(KINDS[kind]([dict(params=[*module.parameters()]) for module in model], **options))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return optim_wrapper


def saved(kind='AdamW', **options):
    optim_wrapper = wrapper(kind, **options)
    optim_wrapper.optimizer.step()
    return copy.deepcopy(optim_wrapper.state_dict())


@pytest.fixture
def group(tmp_path):
    """A group of this process alone."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('kind', ['SGD', 'AdamW'])
def test_an_optimizer_whose_state_is_shared_out_is_compared(group, kind, monkeypatch):
    """It has all groups, and the state of its own parameters in another optimizer."""
    options = dict(momentum=0.9) if kind == 'SGD' else {}
    of_kind = {kind: lambda params, **more: ZeroRedundancyOptimizer(params, kind, lr=0.1, **options, **more)}
    monkeypatch.setattr(f'{__name__}.KINDS', of_kind)
    state, optim_wrapper = saved(kind), wrapper(kind)
    at_first = repr(optim_wrapper.optimizer.optim.state_dict())
    assert match_optimizer(optim_wrapper, copy.deepcopy(state), {'lr'}) == []
    assert repr(optim_wrapper.optimizer.optim.state_dict()) == at_first
    optim_wrapper.load_state_dict(copy.deepcopy(state))
    optim_wrapper.optimizer.step()
    differences = match_optimizer(wrapper(kind, weight_decay=0.5), copy.deepcopy(state), {'lr'})
    assert differences == [f'weight_decay = 0.5 ({state["param_groups"][0]["weight_decay"]:g} in the checkpoint)']
    states(lambda value: value[:1])(state)
    with pytest.raises(
        InputError, match=r'state\[0\]\.\w+ is torch\.float32 \[1, 3, 3, 3\], expected torch\.float32 \[4, '
    ):
        match_optimizer(wrapper(kind), state, {'lr'})


def test_of_shards_options_groups_and_numbers_are_compared():
    """Their state has the names and shapes of whole parameters, which torch cuts again."""
    state = saved(weight_decay=0.25)
    names = [f'{number}.{name}' for number in (0, 1) for name in ('weight', 'bias')]
    state['state'] = dict(zip(names, state['state'].values()))
    for group, members in zip(state['param_groups'], (names[:2], names[2:])):
        group['params'] = members
    shards, differences = wrapper(weight_decay=0.5), ['weight_decay = 0.5 (0.25 in the checkpoint)']
    for parameter in shards.optimizer.param_groups[0]['params']:
        parameter.data = parameter.data.flatten()[:1]
    assert match_optimizer(shards, state, {'lr'}, is_sharded=True) == differences
    assert state['state'].keys() == {*names} and state['param_groups'][0]['params'] == names[:2]
    states(lambda value: value * float('nan'))(state)
    with pytest.raises(InputError, match=r'state\[0\.weight\]\.exp_avg has NaN'):
        match_optimizer(shards, state, {'lr'}, is_sharded=True)
    with pytest.raises(InputError, match='is 1 groups, the optimizer of this run has 2'):
        match_optimizer(shards, {**state, 'param_groups': state['param_groups'][:1]}, {'lr'}, is_sharded=True)


@pytest.mark.parametrize('kind', KINDS)
def test_its_own_state_is_unchanged(kind):
    optim_wrapper, state = wrapper(kind), saved(kind)
    before, at_first = copy.deepcopy(state), repr(optim_wrapper.optimizer.state_dict())
    assert match_optimizer(optim_wrapper, state, {'lr'}) == []
    assert repr(state) == repr(before)
    assert repr(optim_wrapper.optimizer.state_dict()) == at_first  # nothing was done to it
    optim_wrapper.load_state_dict(state)
    optim_wrapper.optimizer.step()


def states(function):
    def change(state):
        for moments in state['state'].values():
            moments.update({key: function(value) for key, value in moments.items() if value.dim()})

    return change


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (states(lambda value: torch.ones((1,) * value.dim())), r'state\[0\]\.exp_avg is torch\.float32 \[1, 1, 1, 1\]'),
        (states(lambda value: value[:1]), r'expected torch\.float32 \[4, 3, 3, 3\]'),
        (states(lambda value: value * float('nan')), r'state\[0\]\.exp_avg has NaN'),
        (states(lambda value: value.long()), r'exp_avg is torch\.int64'),
        (
            lambda state: state['state'][0].pop('exp_avg_sq'),
            r'state\[0\] has no exp_avg_sq: it is of another optimizer',
        ),
        (lambda state: state['state'].update({1: 'x'}), r'state\[1\] is .*expected a dict'),
        (lambda state: state['param_groups'].pop(), r'param_groups is 1 groups, the optimizer of this run has 2'),
        (lambda state: state.update(param_groups='x'), 'param_groups is a str'),
        (lambda state: state['param_groups'][0].update(params='abc'), r'param_groups\[0\]\.params is a str'),
        (lambda state: state['param_groups'][0]['params'].pop(), r'has 1 parameters, that of this run has 2'),
        (lambda state: state['param_groups'][1].update(lr=float('nan')), r'param_groups\[1\]\.lr is nan'),
        (lambda state: state['param_groups'][1].update(lr=-1.0), r'lr is -1\.0'),
        (lambda state: state['param_groups'][1].update(lr='high'), r"lr is 'high'"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, message):
    state = saved()
    change(state)
    with pytest.raises(InputError, match=message):
        match_optimizer(wrapper(), state, {'lr'})


def test_a_state_of_another_optimizer_is_refused():
    with pytest.raises(InputError, match='has no step'):
        match_optimizer(wrapper(), saved('SGD'), {'lr'})
    with pytest.raises(InputError, match='optimizer is a list'):
        match_optimizer(wrapper(), [1], {'lr'})


def test_the_options_of_the_run_are_used_and_told_but_for_a_scheduled_rate():
    optim_wrapper, state = wrapper(weight_decay=0.5), saved(weight_decay=0.25)
    for group in state['param_groups']:
        group.update(lr=0.01, betas=(2, 'x'), fused=False)
    differences = match_optimizer(optim_wrapper, state, {'lr'})
    assert differences == [
        "betas = (0.9, 0.999) ((2, 'x') in the checkpoint)",
        'weight_decay = 0.5 (0.25 in the checkpoint)',
    ]
    optim_wrapper.load_state_dict(state)
    assert [optim_wrapper.param_groups[0][key] for key in ('lr', 'betas', 'weight_decay')] == [0.01, (0.9, 0.999), 0.5]
    optim_wrapper, state = wrapper(), saved()
    optim_wrapper.param_groups[0]['initial_lr'], state['param_groups'][0]['initial_lr'] = 0.1, 0.2
    differences = ['lr scheduled from 0.2, as in the checkpoint (the config has 0.1)']
    assert match_optimizer(optim_wrapper, state, {'lr'}) == differences
    state = saved()
    state['param_groups'][0]['lr'] = 0.01  # and no schedule
    assert match_optimizer(wrapper(), state, ()) == ['lr = 0.1 (0.01 in the checkpoint)']
