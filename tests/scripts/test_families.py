"""One config of each family of the installed libraries trains for a step, with our backbones as with its own."""

import json

import families
import pytest
from survey import swaps
from survey.swaps import ONE_LINE

from icconv_mm import versions
from icconv_mm.errors import InputError

pytestmark = pytest.mark.filterwarnings('ignore')

KNOWN = families.read(max((swaps.PAGE.parent / 'measurements').glob('*-families.json')))
# heads, data and stems of many kinds, in models that train quickly
SELECTED = {
    'mmdet': ['atss', 'dcn', 'qdtrack', 'soft_teacher'],
    'mmseg': ['dmnet', 'fcn', 'icnet', 'upernet'],
    'mmpose': [
        'animal_2d_keypoint/topdown_heatmap',
        'body_2d_keypoint/integral_regression',
        'body_2d_keypoint/topdown_regression',
        'hand_3d_keypoint/internet',
    ],
    'mmpretrain': ['byol', 'csra', 'resnet', 'swav'],
}
TRAINS = {'original': '', 'IC': '', 'PyConv': ''}


@pytest.mark.slow
@pytest.mark.parametrize(('library', 'family'), [(library, name) for library in SELECTED for name in SELECTED[library]])
def test_a_family_trains_with_our_backbones(library, family):
    pytest.importorskip(f'{library}.models')
    row = families.check_family(library, families.find_families(library)[family])
    assert row | TRAINS == row


def test_every_family_that_trains_as_shipped_trains_with_ours():
    rows = {(library, name): row for library in KNOWN for name, row in KNOWN[library]['families'].items() if row}
    trained = {name: row for name, row in rows.items() if not row['original']}
    assert {name: row for name, row in trained.items() if row | TRAINS != row} == {}
    assert len(trained) > 120 and {library for library, _ in trained} == {*swaps.LIBRARIES}


@pytest.mark.parametrize('library', swaps.LIBRARIES)
def test_every_family_of_the_installed_libraries_was_tried(library):
    pytest.importorskip(library)
    if ' '.join(versions.installed(library)) not in KNOWN[library]['with']:
        pytest.skip(f'families were tried with {KNOWN[library]["with"]}')
    assert {*KNOWN[library]['families']} == {*families.find_families(library)}


def test_the_page_is_made_of_the_rows():
    page = swaps.PAGE.read_text()
    assert swaps.put_below(page, swaps.FAMILIES_MARK, families.table(KNOWN) + '\n') == page


def test_what_is_known_is_not_tried_again(tmp_path, monkeypatch):
    pytest.importorskip('mmseg.models')
    row = {'config': 'fcn/a.py', **TRAINS}
    monkeypatch.setattr(families, 'find_families', lambda library: {'fcn': []})
    monkeypatch.setattr(families, 'check_family', lambda library, paths: row)
    rows = tmp_path / 'new/families.json'
    assert families.check_families('mmseg', rows) == {'fcn': row}
    monkeypatch.setattr(families, 'check_family', None)
    assert families.check_families('mmseg', rows) == {'fcn': row}
    known = json.loads(rows.read_text())
    assert 'mmsegmentation ' in known['mmseg']['with'][-1]
    known['mmseg']['with'][1] = 'torch 1.13'
    rows.write_text(json.dumps(known))
    with pytest.raises(InputError, match=r'families.json was made with icconv_mm .*, torch 1.13, .*here are'):
        families.check_families('mmseg', rows)


def test_a_family_names_what_does_not_train(monkeypatch):
    pytest.importorskip('mmseg.models')
    paths = families.find_families('mmseg')['fcn'][:1]
    assert 'r18' in paths[0].name
    monkeypatch.setattr(families, 'ATTEMPTS', ((64, False),))
    monkeypatch.setitem(ONE_LINE['PyConv'], 'ResNetV1c', 'mmseg.MixVisionTransformer')
    monkeypatch.setitem(ONE_LINE['IC'], 'ResNetV1c', 'icconv_mm.NoSuch')
    row = families.check_family('mmseg', paths)
    assert not row['original'] and 'NoSuch' in row['IC'] and 'depth' in row['PyConv']
    monkeypatch.setattr(families, 'make_batch', lambda *args: {'inputs': [], 'data_samples': []})
    row = families.check_family('mmseg', paths)
    assert row['original'] and set(row) == {'config', 'original'}
    rows = {'fcn': row, 'ann': {'config': 'ann/a.py', 'original': '', 'IC': '', 'PyConv': 'x'}, 'mae': None}
    text = families.table({'mmseg': {'with': ['torch 1', 'mmseg 2'], 'families': rows}})
    assert text.startswith('With torch 1, mmseg 2.') and 'mae' not in text
    assert '| mmseg | 1 of 2 | 1 of 1 | 0 of 1 |' in text and '| mmseg | ann | `a.py` | trains | x |' in text
    assert f'| mmseg | fcn | `{paths[0].name}` | {row["original"]} |' in text


def test_a_config_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    path = tmp_path / 'configs/fcn/a.py'
    path.parent.mkdir(parents=True)
    path.write_text("_base_ = 'gone.py'\nmodel = dict(backbone=dict(type='ResNet', depth=18))\n")
    monkeypatch.setattr(families, 'configs_of', lambda library: tmp_path / 'configs')
    row = families.check_family('mmseg', [path])
    assert row['config'] == 'fcn/a.py' and 'gone.py' in row['original'] and set(row) == {'config', 'original'}


def test_backbones_are_swapped_wherever_they_are():
    inner = {'type': 'ResNet', 'depth': 18}
    model = {'detector': {'backbone': dict(inner)}, 'image_encoder': [dict(inner)], 'teacher': {'backbone': inner}}
    cfg = families.Config({'model': model})
    for swap, kind in {'IC': 'icconv_mm.ICResNet', 'PyConv': 'icconv_mm.PyConvResNet'}.items():
        new = families.swapped('mmdet', cfg, swap).model
        assert [new.detector.backbone.type, new.image_encoder[0].type] == [kind, kind]
        assert new.teacher.backbone == inner
    assert cfg.model == model
