"""A run continues only from a checkpoint that says what a run says; nothing outside the run is touched."""

import copy

import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import LinearLR, OptimWrapper

from icconv_mm.checkpoints import resuming, safe
from icconv_mm.errors import InputError


@pytest.fixture
def wrapper():
    layer = torch.nn.Linear(3, 2)
    made = OptimWrapper(torch.optim.AdamW(layer.parameters()))
    made.update_params(layer(torch.ones(1, 3)).sum())
    return made


@pytest.mark.parametrize(
    ('meta', 'message'),
    [
        ({}, 'it has no meta.epoch'),
        ({'epoch': 0}, 'it has no meta.iter'),
        ({'epoch': 0, 'iter': 10**12}, 'meta.iter is 1000000000000, expected a number from 0 to 20'),
        ({'epoch': 0, 'iter': -5}, 'meta.iter is -5'),
        ({'epoch': 'x', 'iter': 3}, "meta.epoch is 'x'"),
        ({'epoch': 0, 'iter': True}, 'meta.iter is True'),
        ({'epoch': 0, 'iter': 3, 'seed': 'abc'}, "meta.seed is 'abc'"),
        ({'epoch': 0, 'iter': 3, 'seed': 2**32}, 'meta.seed is 4294967296'),
    ],
)
def test_progress(meta, message):
    with pytest.raises(InputError, match=message):
        resuming.check_progress({'meta': meta}, None, 20)


def test_progress_of_a_run():
    resuming.check_progress({'meta': {'epoch': 0, 'iter': 20, 'seed': None}}, None, 20)
    resuming.check_progress({'meta': {'epoch': 3, 'iter': 3000, 'seed': 5}}, 12, None)
    assert resuming.seed_of({'meta': {'seed': 5}}) == 5 and resuming.seed_of({}) is None


def hub(**info):
    return {'log_scalars': {'loss': HistoryBuffer()}, 'runtime_info': info, 'resumed_keys': {'loss': True}}


def test_best_checkpoints_of_other_folders_are_not_deleted(tmp_path):
    inside, outside = str(tmp_path / 'best_a.pth'), str(tmp_path.parent / 'thesis.pth')
    checkpoint = {'message_hub': hub(best_ckpt=outside, best_ckpt_AP=inside, keep_ckpt_ids=[3], cfg='text')}
    assert resuming.check_message_hub(checkpoint, [tmp_path]) == [outside]
    assert checkpoint['message_hub']['runtime_info'] == {'best_ckpt_AP': inside, 'keep_ckpt_ids': [3], 'cfg': 'text'}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (None, 'message_hub is missing'),
        ({'log_scalars': {}}, 'message_hub.resumed_keys is missing'),
        ({**hub(), 'log_scalars': {'loss': 1}}, r"log_scalars\['loss'\] is a int, expected a HistoryBuffer"),
        (hub(keep_ckpt_ids=['../../x']), 'keep_ckpt_ids is .* expected a list of integers'),
        (hub(best_ckpt=5), 'best_ckpt is 5, expected a path'),
    ],
)
def test_logs(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        resuming.check_message_hub({'message_hub': content}, [tmp_path])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.clear(), r'optimizer\.param_groups: found a NoneType, expected 1'),
        (lambda s: s['param_groups'].append({}), r'optimizer\.param_groups: found 2, expected 1'),
        (lambda s: s['param_groups'][0].update(params=[0]), r'params: expected 2 parameters, found 1'),
        (lambda s: s['param_groups'][0].update(lr='high'), r'param_groups\[0\]\.lr is a str, expected a number'),
        (lambda s: s.update(state=[]), r'optimizer\.state is a list, expected a dict'),
        (lambda s: s['state'][0].update(exp_avg=torch.ones(7)), r'state\[0\]\.exp_avg has the shape \[7\]'),
    ],
)
def test_optimizers(wrapper, change, message):
    state = copy.deepcopy(wrapper.state_dict())
    resuming.check_optimizer(state, wrapper.optimizer)
    change(state)
    with pytest.raises(InputError, match=message):
        resuming.check_optimizer(state, wrapper.optimizer)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.insert(0, 5), r'param_schedulers\[0\] is a int, expected a dict'),
        (lambda s: s[0].update(step=5), "has 'step', which a LinearLR has not"),
        (lambda s: s[0].update(last_step='x'), "last_step is 'x', expected something like"),
        (lambda s: s[0].update(base_values=[1.0, 2.0]), 'base_values is'),
    ],
)
def test_schedules(wrapper, change, message):
    scheduler = LinearLR(wrapper, start_factor=0.1, by_epoch=False, end=5)
    states = [copy.deepcopy(scheduler.state_dict())]
    resuming.check_schedulers(states, [scheduler])
    change(states)
    with pytest.raises(InputError, match=message):
        resuming.check_schedulers(states, [scheduler])


def test_code_under_meta_config_does_not_reach_mmengine(tmp_path):
    """``Runner.resume`` runs it as a Python file."""
    path = tmp_path / 'a.pth'
    torch.save({'meta': {'config': 'import os', 'epoch': 1}, 'state_dict': {}}, path)
    assert safe.load_from_local(str(path))['meta'] == {'epoch': 1}
