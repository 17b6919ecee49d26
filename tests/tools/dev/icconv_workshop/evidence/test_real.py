"""Sets as public repositories have them: small ones of the same layout are read, trained on and tested."""

import json

import pytest
import torch

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')

from icconv_mm.errors import InputError
from icconv_mm.patterns import read_patterns
from icconv_workshop.evidence.arms import ARMS
from icconv_workshop.evidence.comparisons import COMPARISONS
from icconv_workshop.evidence.experiment import Experiment, trial_of
from icconv_workshop.evidence.real import REAL
from icconv_workshop.evidence.rf_next import RFNextResNet
from icconv_workshop.evidence.runs import BUDGETS, Run
from icconv_workshop.evidence.training import perform

SEARCH = dict(ARMS['bccd/rf-next'].changes['model.backbone']['search'])


def done(root, arm: str) -> dict:
    run = Run(ARMS[arm], 0, BUDGETS['quick'], root)
    result = perform(run)
    assert run.result() == json.loads(json.dumps(result))
    return result


@pytest.mark.slow
def test_rf_next_gives_a_pattern_and_is_tested_with_its_branches(clones):
    result = done(clones, 'bccd/rf-next')
    pattern = read_patterns(Run(ARMS['bccd/rf-next'], 0, BUDGETS['quick'], clones).pattern_file())
    assert len(pattern) == 16 and all(layer.is_uniform for layer in pattern)
    single = done(clones, 'bccd/rf-next-single')
    assert result['costs']['flops'] > 1.1 * single['costs']['flops']
    assert all(0 <= row['tests']['']['box/AP'] <= 100 for row in (result, single))


@pytest.mark.slow
def test_nuclei_have_a_network_for_all_and_one_for_each(clones):
    metrics = {
        name: done(clones, f'nuclei-joint/{name}')['tests'][''].keys() for name in ('joint', 'boxes', 'semantic')
    }
    assert {'box/AP', 'mask/AP', 'mIoU'} <= metrics['joint']
    assert 'box/AP' in metrics['boxes'] and 'mask/AP' not in metrics['boxes']
    assert 'mIoU' in metrics['semantic'] and 'box/AP' not in metrics['semantic']
    files = [
        json.loads((clones / f'data/nuclei/nuclei_{split}.json').read_text()) for split in ('train', 'val', 'test')
    ]
    assert sum(len(content['images']) for content in files) == 24 and all(content['images'] for content in files)


@pytest.mark.slow
@pytest.mark.parametrize('arm', ['camvid-head/pyconv', 'camvid-fpt/ufp-fpt'])
def test_networks_of_the_drawn_images_fit_the_sets(clones, arm):
    (metric,) = next(comparison.metrics for comparison in COMPARISONS.values() if comparison.name == arm.split('/')[0])
    assert 0 <= done(clones, arm)['tests'][''][metric] <= 100


def test_dilations_of_rf_next_are_part_of_the_weights():
    torch.manual_seed(0)
    first, second = (RFNextResNet(SEARCH, depth=18, base_channels=8).eval() for _ in range(2))
    for operator in first.operators():
        operator.op_layer.dilation = (5, 3)
        operator.expand_rates()
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for a, b in zip(first(x), second(x)):
        torch.testing.assert_close(a, b)
    assert second.operators()[0].dilation_rates == [(2, 2), (8, 4)]
    assert [pattern.max_dilation for pattern in second.patterns()] == 4 * [1] + 12 * [5]


def test_a_set_that_is_not_there_is_named_with_its_address(tmp_path):
    with pytest.raises(InputError, match='git clone https://github'):
        Run(ARMS['camvid/dense'], 0, BUDGETS['quick'], tmp_path / 'quick').config()


def test_sets_that_are_not_there_are_left_out_unless_they_are_named(clones, tmp_path):
    here, elsewhere = (Experiment(root, BUDGETS['quick'], [0]).comparisons for root in (clones.parent, tmp_path))
    assert [comparison.name for comparison in here] == list(COMPARISONS)
    assert [comparison.name for comparison in elsewhere] == [n for n in COMPARISONS if n.split('-')[0] not in REAL]


def test_trials_have_a_rate_or_a_length_of_their_own(tmp_path):
    arm = ARMS['search/dense']
    trial = trial_of(arm, ['2e-3', 'x4'])
    assert trial.name == 'search/dense@2e-3@x4' and trial.length == 4
    config = Run(trial, 1000, BUDGETS['cpu'], tmp_path).config()
    assert config.optim_wrapper.optimizer.lr == 2e-3 and config.train_cfg.max_iters == 1600
    assert 'val' in config.test_dataloader.dataset.ann_file  # seeds from 1000 on are for trials
    with pytest.raises(InputError, match='@xLENGTH'):
        trial_of(arm, ['fast'])
