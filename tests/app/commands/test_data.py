"""``icconv data`` writes its folder as one and never touches files of others."""

import json

import labelled
import pytest

from icconv_mm.__main__ import main

pytest.importorskip('pycocotools')


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('name', ['maps', '1/maps', 'detection_train.json'])
def test_a_folder_of_others_is_refused_and_stays_as_it_is(tmp_path, name):
    data = labelled.seg_maps(tmp_path / 'data')
    if name.endswith('.json'):
        (data / name).write_text('["mine"]')
    else:
        (data / 'trainannot').rename(data / name) if name == 'maps' else (data / '1').mkdir()
        if name != 'maps':
            (data / 'trainannot').rename(data / name)
    before = _contents(data)
    with pytest.raises(SystemExit, match=r'--out-dir: .* is not an empty folder: .* --overwrite'):
        main(['data', str(data), '--out-dir', str(data)])
    assert _contents(data) == before


def test_a_folder_of_this_command_is_written_anew(tmp_path, capsys):
    data, out = labelled.seg_maps(tmp_path / 'data', ignore_index=11), tmp_path / 'out'
    main(['data', str(data), '--out-dir', str(out), '--ignore-index', '11'])
    assert f'written to {out}; images: {out / "page.jpg"}' in capsys.readouterr().out
    entries = json.loads((out / 'semantic_train.json').read_text())['images']
    assert all((out / entry['seg_map']).is_file() for entry in entries)
    (out / 'mine.txt').write_text('mine')
    objects = labelled.yolo(tmp_path / 'objects')
    main(['data', str(objects), '--out-dir', str(out)])
    there = {str(path) for path in _contents(out)}
    assert {'mine.txt', 'detection_train.json', 'page.jpg'} <= there
    assert not any(path.startswith(('maps', 'semantic')) for path in there)


def test_files_of_the_same_names_are_overwritten_on_demand(tmp_path):
    data, out = labelled.yolo(tmp_path / 'data'), tmp_path / 'out'
    out.mkdir()
    for name in ('warnings.json', 'mine.json'):
        (out / name).write_text('mine')
    main(['data', str(data), '--out-dir', str(out), '--overwrite'])
    assert json.loads((out / 'warnings.json').read_text()) == [] and (out / 'mine.json').read_text() == 'mine'
    with pytest.raises(SystemExit, match='--overwrite: is for --out-dir'):
        main(['data', str(data), '--to', 'coco', '--out', str(tmp_path / 'coco'), '--overwrite'])


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    from icconv_mm.app.annotations.writers import yolo

    def fail(*_):
        raise OSError(28, 'No space left on device', 'a.txt')

    monkeypatch.setattr(yolo, '_line', fail)
    with pytest.raises(SystemExit):
        main(['data', str(labelled.yolo(tmp_path / 'data')), '--to', 'yolo', '--out', str(tmp_path / 'out')])
    assert [path.name for path in tmp_path.iterdir()] == ['data']


def test_several_classes_of_images_do_not_refuse_their_boxes(tmp_path, capsys):
    data = labelled.cvat(tmp_path / 'data')
    for path in data.rglob('*.xml'):
        text = path.read_text().replace('</image>', '<tag label="rain"/><tag label="night"/></image>')
        path.write_text(text)
    main(['data', str(data), '--out-dir', str(tmp_path / 'out')])
    said = capsys.readouterr().out
    assert 'detection: ' in said and 'images have several classes' in said and 'classification: ' not in said
