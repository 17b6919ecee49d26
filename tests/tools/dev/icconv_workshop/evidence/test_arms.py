"""Arms differ from their baseline by what they are named after, and are evaluated by the split for tests."""

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('mmpretrain')


from icconv_workshop.evidence.arms import ARMS
from icconv_workshop.evidence.comparisons import COMPARISONS
from icconv_workshop.evidence.runs import BUDGETS, Run

QUICK = BUDGETS['quick']


@pytest.mark.parametrize('comparison', COMPARISONS)
def test_arms_differ_in_the_network_alone(comparison, clones):
    """Data, schedule and optimiser are those of the baseline; a joint network has heads of its own."""
    configs = [
        Run(ARMS[row.arm], 0, QUICK, clones).config()
        for row in COMPARISONS[comparison].rows
        if ARMS[row.arm].pattern_of is None
    ]
    for config in configs[1:]:
        assert config.optim_wrapper == configs[0].optim_wrapper
        assert config.train_cfg == configs[0].train_cfg and config.randomness == configs[0].randomness
        assert config.param_scheduler == configs[0].param_scheduler
        assert config.train_dataloader.batch_size == configs[0].train_dataloader.batch_size
        if 'joint' not in comparison:
            assert config.train_dataloader == configs[0].train_dataloader


@pytest.mark.parametrize(
    'name', ['search/dense', 'search-pose/dense', 'joint/joint', 'head/psp', 'backbone-classification/resnet']
)
def test_runs_are_tested_on_the_split_for_tests(name, tmp_path):
    config = Run(ARMS[name], 0, QUICK, tmp_path).config()
    text = str(config.test_dataloader) + str(config.test_evaluator)
    assert 'test' in text and not any(f'val{end}' in text for end in ('/', '.json', "'"))
    assert 'train' in str(config.train_dataloader) and config.val_dataloader is None


def test_settings_change_with_what_is_set(tmp_path):
    run = Run(ARMS['search/dense'], 0, QUICK, tmp_path)
    assert run.settings() == Run(ARMS['search/dense'], 0, QUICK, tmp_path / 'elsewhere').settings()
    others = [
        Run(ARMS['search/analytic'], 0, QUICK, tmp_path),
        Run(ARMS['search/dense'], 1, QUICK, tmp_path),
        Run(ARMS['search/dense'], 0, BUDGETS['cpu'], tmp_path),
    ]
    assert len({run.settings(), *(other.settings() for other in others)}) == 4
