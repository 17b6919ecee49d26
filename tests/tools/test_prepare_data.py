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
