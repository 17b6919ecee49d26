"""What the tool prints and writes of a folder."""

import json
import runpy

import labelled
import pytest

pytest.importorskip('pycocotools')


@pytest.fixture
def main(repo):
    return runpy.run_path(str(repo / 'tools' / 'prepare_data.py'), run_name='prepare_data')['main']


def test_what_boxes_of_pascal_voc_count_from(main, tmp_path, capsys):
    root, boxes = labelled.voc(tmp_path / 'data'), []
    for number, options in enumerate(([], ['--voc-from', '0'])):
        main([str(root), '--out-dir', str(tmp_path / str(number)), *options])
        content = json.loads((tmp_path / str(number) / 'detection_train.json').read_text())
        boxes.append(content['annotations'][0]['bbox'])
        note = 'note: boxes count pixels from 1: as in Pascal VOC; no box says otherwise (--voc-from 0 changes this)'
        assert (note in capsys.readouterr().out) == (not options)
    assert boxes == [[4, 6, 20, 16], [5, 7, 19, 15]]


def test_the_skeleton_of_a_class(main, reported_cases, tmp_path, capsys):
    data = str(reported_cases / 'cvat_two_skeletons' / 'data')
    with pytest.raises(SystemExit, match=r'^error: --classes: .*person has 1, 2, 3; dog has 1, 2, 3, 4, 5'):
        main([data, '--out-dir', str(tmp_path)])
    main([data, '--out-dir', str(tmp_path), '--classes', 'dog'])
    assert '5 keypoints: 1, 2, 3, 4, 5' in capsys.readouterr().out and (tmp_path / 'page.jpg').is_file()


def test_a_dataset_prepared_again_leaves_nothing_of_before(main, tmp_path):
    """Another task and another split; files of others in the folder stay."""
    out = tmp_path / 'out'
    maps = labelled.seg_maps(tmp_path / 'maps', 'colors')
    main([str(maps), '--out-dir', str(out)])
    former = {path.name for path in out.rglob('*') if path.is_file()}
    assert {'semantic_train.json', 'semantic_val.json', 'semantic_classes.txt'} <= former
    assert list(out.glob('maps/**/*.png'))
    (out / 'notes.txt').write_text('of a user')
    main([str(labelled.yolo(tmp_path / 'data')), '--out-dir', str(out)])
    left = {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()}
    assert not [name for name in left if name.startswith(('semantic', 'maps'))]
    assert {'detection_train.json', 'page.jpg', 'notes.txt'} <= left
