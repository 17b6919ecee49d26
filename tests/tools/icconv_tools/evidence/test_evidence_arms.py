"""The table of arms: every comparison is whole, and arms differ from their baseline by what they are named after."""

import json

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('mmpretrain')

from mmengine.registry import MODELS, init_default_scope

from icconv_mm.errors import InputError
from icconv_mm.patterns import DilationPattern, write_patterns
from icconv_mm.utils.config_tree import dicts_in
from icconv_tools.evidence.arms import ARMS, CAUSES, DATA, RATES
from icconv_tools.evidence.comparisons import COMPARISONS, arm_named, arms_of
from icconv_tools.evidence.runs import BUDGETS, CONFIGS, Run

QUICK = BUDGETS['quick']
ROWS = [(name, row) for name, each in COMPARISONS.items() for row in (*each.rows, *each.costs)]


def test_rows_are_tests_of_arms():
    assert all(row.arm in ARMS and (not row.test or row.test in ARMS[row.arm].tests) for _, row in ROWS)
    assert all(len(comparison.rows) > 1 and comparison.metrics for comparison in COMPARISONS.values())
    used = {arm.name for arm in arms_of(list(COMPARISONS))}
    assert used == set(ARMS)


@pytest.mark.parametrize('name', CAUSES)
def test_arms_of_causes_are_fpt_with_fewer_transformers(name, tmp_path):
    assert name not in ARMS and arm_named(f'{name}@x4').length == 4
    cause, fpt = (Run(arm_named(each), 1000, QUICK, tmp_path).config() for each in (name, 'fpt/fpt'))
    kinds = cause.model.neck.pop('interactions')
    assert set(kinds) < set(fpt.model.neck.pop('interactions'))
    assert cause.model == fpt.model and cause.optim_wrapper == fpt.optim_wrapper


def test_a_comparison_is_on_one_data_and_length():
    for comparison in COMPARISONS.values():
        arms = [ARMS[row.arm] for row in comparison.rows]
        assert {arm.data for arm in arms} == {arms[0].data} <= set(DATA)
        assert {arm.length for arm in arms} == {1.0}


def test_supernets_come_before_their_patterns():
    names = [arm.name for arm in arms_of(['search', 'search-pose'])]
    for name in names:
        if ARMS[name].pattern_of:
            assert names.index(ARMS[name].pattern_of) < names.index(name)


def test_every_family_has_a_rate():
    assert all(arm.rate > 0 for arm in ARMS.values())
    assert {arm.name.split('/')[0] for arm in ARMS.values()} - set(RATES) == {'search-near', 'search-middle'}
    assert RATES['fpt'] == RATES['joint']


def test_every_config_is_the_base_of_an_arm():
    bases = {arm.base for arm in ARMS.values()} | {'retinanet', 'pose'}  # of which others inherit
    assert {path.stem for path in CONFIGS.glob('*.py')} == bases


@pytest.mark.parametrize('name', [name for name, arm in ARMS.items() if arm.pattern_of is None])
def test_arms_build(name, tmp_path):
    config = Run(ARMS[name], 0, QUICK, tmp_path).config()
    init_default_scope(config.get('default_scope', 'mmengine'))
    for node in dicts_in(config.model):
        if node.get('type') == 'SyncBN':
            node['type'] = 'BN'
    if config.get('data_preprocessor'):
        config.model.data_preprocessor = config.data_preprocessor
    model = MODELS.build(config.model)
    assert sum(each.numel() for each in model.parameters()) > 1e5


@pytest.mark.parametrize('comparison', COMPARISONS)
def test_arms_differ_in_the_network_alone(comparison, tmp_path):
    """Data, schedule and optimiser are those of the baseline; a joint network has heads of its own."""
    configs = [
        Run(ARMS[row.arm], 0, QUICK, tmp_path).config()
        for row in COMPARISONS[comparison].rows
        if ARMS[row.arm].pattern_of is None
    ]
    for config in configs[1:]:
        assert config.optim_wrapper == configs[0].optim_wrapper
        assert config.train_cfg == configs[0].train_cfg and config.randomness == configs[0].randomness
        assert config.param_scheduler == configs[0].param_scheduler
        assert config.train_dataloader.batch_size == configs[0].train_dataloader.batch_size
        if not comparison.startswith('joint'):
            assert config.train_dataloader == configs[0].train_dataloader


def test_searched_needs_its_supernet(tmp_path):
    run = Run(ARMS['search/searched'], 3, QUICK, tmp_path)
    assert run.needs.name == 'search/supernet/seed3'
    with pytest.raises(InputError, match='no pattern yet, search/supernet/seed3 comes first'):
        run.config()
    run.needs.folder.mkdir(parents=True)
    pattern = [[(32, 1, 2)]] * 4 + [[(64, 4, 1)]] * 4
    patterns = [DilationPattern.of(each) for each in pattern]
    write_patterns(patterns, run.needs.pattern_file)
    assert run.config().model.backbone.pattern == [each.to_json() for each in patterns]


def test_tuning_seeds_see_the_validation_split(tmp_path):
    """Seeds of hyper-parameters see the validation split, the others the test split, in data and metric."""
    for seed, split, other in ((0, 'test', 'val'), (1000, 'val', 'test')):
        for name in ('search/dense', 'search-pose/dense', 'joint/joint', 'head/psp', 'backbone-classification/resnet'):
            config = Run(ARMS[name], seed, QUICK, tmp_path).config()
            text = str(config.test_dataloader) + str(config.test_evaluator)
            assert f'{split}' in text and not any(f'{other}{end}' in text for end in ('/', '.json', "'"))
            assert 'train' in str(config.train_dataloader) and config.val_dataloader is None


def test_settings_change_with_what_is_set(tmp_path):
    run = Run(ARMS['search/dense'], 0, QUICK, tmp_path)
    assert run.settings() == Run(ARMS['search/dense'], 0, QUICK, tmp_path / 'elsewhere').settings()
    others = [
        Run(ARMS['search/analytic'], 0, QUICK, tmp_path),
        Run(ARMS['search/dense'], 1, QUICK, tmp_path),
        Run(ARMS['search/dense'], 0, BUDGETS['cpu'], tmp_path),
    ]
    assert len({run.settings(), *(each.settings() for each in others)}) == 4


def test_recorded_results_are_found_under_types_of_other_names(repo, tmp_path):
    """Types of pose were renamed after these runs."""
    for name in ('joint/joint', 'joint/pose', 'search-pose/dense'):
        recorded = repo / f'docs/measurements/evidence/cpu/runs/{name}/seed0/result.json'
        assert Run(ARMS[name], 0, BUDGETS['cpu'], tmp_path).settings() == json.loads(recorded.read_text())['settings']
