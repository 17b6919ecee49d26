"""Every config of the installed libraries with a backbone of the ResNet family, with ours in its place."""

import compatibility
import pytest
from compatibility import Outcome
from survey import swaps
from survey.swaps import CONFIGS_MARK, FAMILIES_MARK, LIBRARIES, ONE_LINE, WRAPPERS, Case

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.mark.slow
@pytest.mark.parametrize('library', LIBRARIES)
def test_every_config_takes_our_backbones(library):
    pytest.importorskip(library)
    outcomes = compatibility.check_library(library)
    assert len(outcomes) > 300
    for swap, share in {**dict.fromkeys(ONE_LINE, 0.99), **dict.fromkeys(WRAPPERS, 1)}.items():
        errors = [outcome.error for outcome in outcomes if outcome.swap == swap]
        assert len(errors) > 50 and errors.count('') >= share * len(errors), (swap, {*errors})


def test_backbones_are_found_wherever_a_config_has_them():
    inner = {'type': 'mmdet.ResNeXt', 'depth': 50}
    model = {
        'backbone': {'type': 'ICNet', 'backbone_cfg': inner},
        'neck': [{'type': 'RFP', 'rfp_backbone': inner}, {'backbone_name': 'ResNet'}],
        'decode_head': {'backbone': {'type': 'VisionTransformer'}},
    }
    assert list(compatibility._backbones(model)) == [inner, inner]
    kinds = [swap for swap, _ in swaps.swaps(Case('mmdet', 'a.py', inner))]
    assert kinds == ['IC', 'PyConv', 'PyConvHG', 'ICBackbone', 'PyConvBackbone']
    small = Case('mmdet', 'a.py', {'type': 'Res2Net', 'depth': 18, 'init_cfg': {'type': 'Pretrained'}})
    swapped = dict(swaps.swaps(small))
    assert list(swapped) == ['ICBackbone', 'PyConvBackbone'] and 'init_cfg' not in swapped['ICBackbone']['backbone']


def test_outcomes_tell_what_differs(monkeypatch):
    pytest.importorskip('mmdet.models')
    case = Case('mmdet', 'a.py', {'type': 'ResNet', 'depth': 18})
    assert [(outcome.swap, outcome.error) for outcome in compatibility.check_case(case)] == [
        (swap, '') for swap in ('IC', 'PyConv', 'ICBackbone', 'PyConvBackbone')
    ]
    monkeypatch.setitem(WRAPPERS['ICBackbone'], 'filter', 'nowhere')
    monkeypatch.setitem(ONE_LINE['PyConv'], 'ResNet', 'mmdet.RegNet')
    errors = {outcome.swap: outcome.error for outcome in compatibility.check_case(case)}
    assert errors['IC'] == '' and 'unexpected keyword' in errors['PyConv']
    assert "filter 'nowhere'" in errors['ICBackbone']
    assert compatibility.check_case(Case('mmdet', 'b.py', {'type': 'ResNet', 'depth': 20}))[0].swap == 'original'
    monkeypatch.setitem(ONE_LINE['IC'], 'ResNet', 'mmdet.ResNet')  # which has no pattern
    assert 'pattern' in {o.swap: o.error for o in compatibility.check_case(case)}['IC']


def test_the_table_counts_configs_and_names_failures():
    one, two = (Case('mmdet', name, {'type': 'ResNet', 'depth': 50}) for name in ('a.py', 'b.py'))
    text = compatibility.table(
        [Outcome(one, 'IC', ''), Outcome(two, 'IC', 'ValueError: a | b'), Outcome(one, 'PyConv', '')]
    )
    assert '| mmdet | 1 of 2 (50.0%) | 1 of 1 (100.0%) |' in text
    assert '| mmdet | ResNet | IC | 1 | `b.py` | ValueError: a / b |' in text
    assert '---' not in compatibility.table([Outcome(one, 'IC', '')]).partition('\n')[2].partition('\n')[2]


def test_tables_of_a_page_are_replaced_one_by_one(tmp_path):
    path = tmp_path / 'page.md'
    path.write_text(f'intro\n{CONFIGS_MARK}\nold\n\n## Steps\n\n{FAMILIES_MARK}\nolder\n')
    swaps.write_page(path, CONFIGS_MARK, 'new')
    swaps.write_page(path, FAMILIES_MARK, 'newer')
    assert path.read_text() == f'intro\n{CONFIGS_MARK}\nnew\n\n## Steps\n\n{FAMILIES_MARK}\nnewer\n'
    swaps.write_page(tmp_path / 'other.md', CONFIGS_MARK, 'new')
    assert (tmp_path / 'other.md').read_text() == f'{CONFIGS_MARK}\nnew\n'
