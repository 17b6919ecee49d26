"""Every config of the installed libraries with a backbone of the ResNet family, with ours in its place."""

import pytest

import compatibility
from compatibility import LIBRARIES, ONE_LINE, WRAPPERS, Case

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
