"""Every config of the installed libraries with a backbone of the ResNet family, with ours in its place."""

import json

import compatibility
import families
import pytest
from compatibility import ONE_LINE, WRAPPERS, Case, Outcome

pytestmark = pytest.mark.filterwarnings('ignore')


@pytest.mark.slow
@pytest.mark.parametrize('library', compatibility.LIBRARIES)
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
    kinds = [swap for swap, _ in compatibility.swaps(Case('mmdet', 'a.py', inner))]
    assert kinds == ['IC', 'PyConv', 'PyConvHG', 'Inception', 'Pyramidal']
    small = Case('mmdet', 'a.py', {'type': 'Res2Net', 'depth': 18, 'init_cfg': {'type': 'Pretrained'}})
    swapped = dict(compatibility.swaps(small))
    assert list(swapped) == ['Inception', 'Pyramidal'] and 'init_cfg' not in swapped['Inception']['backbone']


def test_outcomes_tell_what_differs(monkeypatch):
    pytest.importorskip('mmdet.models')
    case = Case('mmdet', 'a.py', {'type': 'ResNet', 'depth': 18})
    assert [(outcome.swap, outcome.error) for outcome in compatibility.check_case(case)] == [
        (swap, '') for swap in ('IC', 'PyConv', 'Inception', 'Pyramidal')
    ]
    monkeypatch.setitem(WRAPPERS['Inception'], 'filter', 'nowhere')
    monkeypatch.setitem(ONE_LINE['PyConv'], 'ResNet', 'mmdet.RegNet')
    errors = {outcome.swap: outcome.error for outcome in compatibility.check_case(case)}
    assert errors['IC'] == '' and 'unexpected keyword' in errors['PyConv'] and 'selected' in errors['Inception']
    assert compatibility.check_case(Case('mmdet', 'b.py', {'type': 'ResNet', 'depth': 20}))[0].swap == 'original'
    monkeypatch.setitem(ONE_LINE['IC'], 'ResNet', 'mmpose.ResNet')  # which has no pattern
    assert 'pattern' in {o.swap: o.error for o in compatibility.check_case(case)}['IC']


def test_the_table_counts_configs_and_names_failures():
    one, two = (Case('mmdet', name, {'type': 'ResNet', 'depth': 50}) for name in ('a.py', 'b.py'))
    text = compatibility.table(
        [Outcome(one, 'IC', ''), Outcome(two, 'IC', 'ValueError: a | b'), Outcome(one, 'PyConv', '')]
    )
    assert '| mmdet | 1 of 2 (50.0%) | 1 of 1 (100.0%) |' in text
    assert '| mmdet | ResNet | IC | 1 | `b.py` | ValueError: a / b |' in text
    assert '---' not in compatibility.table([Outcome(one, 'IC', '')]).partition('\n')[2].partition('\n')[2]


@pytest.mark.slow
@pytest.mark.parametrize(('library', 'at_least'), [('mmdet', 10), ('mmseg', 7)])
def test_every_family_that_trains_also_trains_with_our_backbones(library, at_least, tmp_path):
    pytest.importorskip(library)
    rows = families.check_families(library, tmp_path / 'families.json')
    trained = {family: row for family, row in rows.items() if not row['original']}
    assert len(trained) >= at_least
    failed = {family: row for family, row in trained.items() if any(row[swap] for swap in families.SWAPS)}
    assert not failed


def test_a_family_trains_with_our_backbones(tmp_path, monkeypatch):
    pytest.importorskip('mmseg.models')
    paths = families.find_families('mmseg')['fcn']
    assert 'r18' in paths[0].name
    monkeypatch.setattr(families, 'find_families', lambda library: {'fcn': paths})
    cache = tmp_path / 'new/families.json'
    rows = families.check_families('mmseg', cache)
    name = paths[0].relative_to(paths[0].parents[1]).as_posix()
    assert rows == {'fcn': {'config': name, 'original': '', 'IC': '', 'PyConv': ''}}
    monkeypatch.setattr(families, 'check_family', None)  # what is known is not tried again
    assert families.check_families('mmseg', cache) == json.loads(cache.read_text())['mmseg'] == rows


def test_a_family_names_what_does_not_train(monkeypatch):
    pytest.importorskip('mmseg.models')
    paths = families.find_families('mmseg')['fcn'][:1]
    monkeypatch.setattr(families, 'SIZES', (64,))
    monkeypatch.setitem(ONE_LINE['PyConv'], 'ResNetV1c', 'mmseg.MixVisionTransformer')
    monkeypatch.setitem(ONE_LINE['IC'], 'ResNetV1c', 'icconv_mm.NoSuch')
    row = families.check_family('mmseg', paths)
    assert not row['original'] and 'NoSuch' in row['IC'] and 'depth' in row['PyConv']
    monkeypatch.setattr(families, 'make_batch', lambda *args, **kwargs: {'inputs': [], 'data_samples': []})
    row = families.check_family('mmseg', paths)
    assert row['original'] and set(row) == {'config', 'original'}
    text = families.table(
        {'mmseg': {'fcn': row, 'ann': {'config': 'ann/a.py', 'original': '', 'IC': '', 'PyConv': 'x'}}}
    )
    assert '| mmseg | 1 of 2 | 1 of 1 | 0 of 1 |' in text and '| mmseg | ann | `a.py` | trains | x |' in text
    assert f'| mmseg | fcn | `{paths[0].name}` | {row["original"]} |' in text


def test_tables_of_a_page_are_replaced_one_by_one():
    marks = (compatibility.MARK, families.MARK)
    page = f'intro\n{marks[0]}\nold\n\n## Steps\n\n{marks[1]}\nolder\n'
    page = compatibility.put_below(page, marks[0], 'new\n', marks)
    page = compatibility.put_below(page, marks[1], 'newer\n', marks)
    assert page == f'intro\n{marks[0]}\nnew\n\n## Steps\n\n{marks[1]}\nnewer\n'
    assert compatibility.put_below('', marks[0], 'new\n', marks) == f'{marks[0]}\nnew\n'
