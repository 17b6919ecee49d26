"""Sessions and their command: images that fail, names, and what is written."""

import functools
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from described import RULE, TASK, described, random_image

from icconv_mm_runtime import RuntimeInputError, Session, drawing, limits


def classified(**changes):
    """A session whose network gives the mean of blue and of green."""

    def run(given):
        return {'scores': given['image'][:, :2].mean((2, 3)).astype('f4')}

    return Session.of(described(**changes), run, 'net')


def test_no_input_is_larger_than_the_limit(tmp_path, monkeypatch):
    """Each image is small, and so is what it becomes; a batch that fills up to the longest of both sides is not."""
    monkeypatch.setattr(limits, 'MAX_INPUT_PIXELS', 1000)
    session = classified(batch={**RULE, 'pads': True})
    images = [random_image(4, 100), random_image(100, 4)]
    with pytest.raises(RuntimeInputError, match='an input of 20000 pixels is too large, at most 1000 are given'):
        list(session.predict(images, batch_size=2))
    assert all(not isinstance(result, RuntimeInputError) for _, result in session.try_predict(images, batch_size=2))
    monkeypatch.setattr(limits, 'MAX_IMAGE_PIXELS', 399)
    with pytest.raises(RuntimeInputError, match='has 100x4 pixels, at most 399 are read'):
        list(session.predict(images[:1]))
    path = tmp_path / 'a.bmp'
    cv2.imwrite(str(path), random_image(4, 4))
    monkeypatch.setattr(limits, 'MAX_IMAGE_BYTES', 100)
    with pytest.raises(RuntimeInputError, match=r'a\.bmp: has 102 bytes, at most 100 are read'):
        list(session.predict(path))


def test_a_image_that_fails_costs_no_other(tmp_path):
    """Damaged, empty, and so thin that a step leaves nothing of it: each is an error in its place."""
    steps = [{'op': 'resize', 'scale': [60, 40], 'keep_ratio': True}]
    for name in 'aeg':
        cv2.imwrite(str(tmp_path / f'{name}.png'), random_image(20, 30))
    (tmp_path / 'b.png').write_bytes(b'')
    (tmp_path / 'c.png').write_bytes((tmp_path / 'a.png').read_bytes()[:60])
    cv2.imwrite(str(tmp_path / 'd.png'), random_image(1, 500))
    session = classified(steps=steps)
    given = [tmp_path, tmp_path / 'absent.jpg', random_image(8, 9), np.zeros((3, 3))]
    for batch_size in (1, 2, 4):
        tried = list(session.try_predict(given, batch_size))
        failed = {path: str(result) for path, result in tried if isinstance(result, RuntimeInputError)}
        assert [Path(path).name for path, _ in tried] == [
            *(f'{name}.png' for name in 'abcdeg'),
            'absent.jpg',
            'array_2',
            'array_3',
        ]
        assert [Path(path).stem for path in failed] == ['b', 'c', 'd', 'absent', 'array_3']
        assert 'pixels would become' in failed[str(tmp_path / 'd.png')]
    with pytest.raises(RuntimeInputError, match=r'b\.png: is no image, or is damaged'):
        list(session.predict(given))


def test_a_network_that_fails_on_one_image_of_a_batch():
    def run(arrays):
        if arrays['image'].max() == 255:
            raise RuntimeError('too bright')
        return {'scores': np.ones((len(arrays['image']), 2), np.float32)}

    session = Session.of(described(), run, 'net')
    images = [np.full((4, 4, 3), value, np.uint8) for value in (0, 255, 1)]
    results = [result for _, result in session.try_predict(images, batch_size=3)]
    assert [isinstance(result, RuntimeInputError) for result in results] == [False, True, False]
    assert 'does not run on array_1 (image [1, 3, 4, 4]): too bright' in str(results[1])


def test_the_command_does_the_rest_and_says_what_failed(tmp_path, capsys, monkeypatch):
    from icconv_mm_runtime import __main__ as command

    (tmp_path / 'in').mkdir()
    cv2.imwrite(str(tmp_path / 'in' / 'a.png'), random_image(20, 30))
    cv2.imwrite(str(tmp_path / 'in' / 'c.png'), random_image(1, 9000))  # drawn reduced
    (tmp_path / 'in' / 'b\x1b[31m\nred.png').write_bytes(b'')
    monkeypatch.setattr(command, 'Session', lambda *_: classified())
    with pytest.raises(SystemExit) as end:
        command.main(['net.onnx', str(tmp_path / 'in'), '--out-dir', str(tmp_path / 'out')])
    first, *failed = str(end.value).split('\n')
    assert first == f'error: 1 of 3 images failed; the results of the others are in {tmp_path / "out"}:'
    assert failed == [f'  {tmp_path}/in/b\\x1b[31m\\nred.png: is no image, or is damaged']
    images = json.loads((tmp_path / 'out' / 'images.json').read_text())['images']
    assert [(image['id'], image['file_name']) for image in images] == [(1, 'a.png'), (3, 'c.png')]
    assert {record['image_id'] for record in json.loads((tmp_path / 'out' / 'predictions.json').read_text())} == {1, 3}
    assert sorted(path.name for path in (tmp_path / 'out' / 'vis').iterdir()) == ['a.png', 'c.png']


@pytest.fixture
def predicted(tmp_path, monkeypatch):
    """Runs the command on images; gives the error in its lines, the names in vis/, and images.json."""
    from icconv_mm_runtime import __main__ as command

    def run(*images, session=None):
        out = tmp_path / 'out'
        monkeypatch.setattr(command, 'Session', lambda *_: session or classified())
        lines = []
        try:
            command.main(['net.onnx', *map(str, images), '--out-dir', str(out)])
        except SystemExit as end:
            lines = str(end.code).split('\n')
        about = json.loads((out / 'images.json').read_text())
        return lines, sorted(path.name for path in (out / 'vis').iterdir()), about

    return run


def refuse_names(monkeypatch, *functions):
    """The test fails, before OpenCV crashes, if one of its functions gets text that is not UTF-8."""

    def guarded(function, *given):
        for value in given:
            if isinstance(value, str):
                value.encode()
        return function(*given)

    for name in functions:
        monkeypatch.setattr(cv2, name, functools.partial(guarded, getattr(cv2, name)))


def test_no_name_of_a_image_reaches_opencv(tmp_path, predicted, monkeypatch):
    """Not UTF-8, with a suffix that OpenCV cannot write colours as, too long for a number or a suffix more."""
    names = [b'fa\xe7ade.png', b'x.\xe9', b'y.pgm', b'z.PNG', b'v' * 251 + b'.png', b'w' * 255]
    for folder in (b'a', b'b'):
        (tmp_path / os.fsdecode(folder)).mkdir()
        for name in names:
            (tmp_path / os.fsdecode(folder + b'/' + name)).write_bytes(cv2.imencode('.png', random_image(20, 30))[1])
    refuse_names(monkeypatch, 'imencode', 'imwrite', 'haveImageWriter')
    paths = [tmp_path / folder / os.fsdecode(name) for folder in 'ab' for name in names]
    lines, shown, about = predicted(*paths)
    assert not lines and len(shown) == len(about['images']) == 12
    alike = [b'fa\xe7ade.png', b'x.\xe9.jpg', b'y.pgm.jpg', b'z.PNG', b'v' * 196 + b'.png', b'w' * 196 + b'.jpg']
    numbered = [b'%d_%s' % (number, name) for number, name in enumerate(alike, start=7)]
    assert shown == sorted(map(os.fsdecode, alike + numbered))
    whole = [f'{path.parent.name}/{path.name}' for path in paths]  # equal names are told apart
    assert [image['file_name'] for image in about['images']] == whole
    assert all(cv2.imdecode(np.fromfile(tmp_path / 'out' / 'vis' / name, np.uint8), 1).shape[2] == 3 for name in shown)


def test_no_drawn_image_replaces_another(tmp_path, predicted):
    for name in ('A/3_a.png', 'B/a.png', 'C/a.png'):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), random_image(20, 30))
    assert predicted(*(tmp_path / folder for folder in 'ABC'))[1] == ['3_a.png', '4_a.png', 'a.png']


def test_a_image_that_cannot_be_drawn_costs_no_other(tmp_path, predicted, monkeypatch):
    for name in 'abc':
        cv2.imwrite(str(tmp_path / f'{name}.png'), random_image(20, 31 if name == 'b' else 30))
    draw_image = drawing.draw

    def draw(image, content):
        return draw_image(image, content) if image.shape[1] == 30 else cv2.resize(image, (0, 0))

    monkeypatch.setattr(drawing, 'draw', draw)
    lines, shown, about = predicted(tmp_path)
    assert len(lines) == 2 and lines[0].startswith('error: 1 of 3 images failed') and 'b.png: OpenCV' in lines[1]
    assert shown == ['a.png', 'c.png'] and [image['id'] for image in about['images']] == [1, 3]
    records = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert {record['image_id'] for record in records} == {1, 3}


def test_a_seg_map_of_one_class_against_the_rest(tmp_path, predicted):
    """Every category in the results is one that images.json has."""
    task = {'kind': 'semantic', 'outputs': ['logits'], 'classes': ['road'], 'align_corners': False, 'threshold': 0.3}

    def run(arrays):
        logits = np.full((1, 1, *arrays['image'].shape[2:]), -9, 'f4')
        logits[..., :9] = 9
        return {'logits': logits}

    cv2.imwrite(str(tmp_path / 'a.png'), random_image(20, 30))
    session = Session.of(described(tasks=[{**TASK, **task}]), run, 'net')
    lines, _, about = predicted(tmp_path, session=session)
    records = json.loads((tmp_path / 'out' / 'predictions.json').read_text())
    assert not lines and [category['id'] for category in about['categories']] == [1]
    assert [record['category_id'] for record in records] == [1]


def test_no_path_of_a_video_that_is_not_utf_8_reaches_opencv(tmp_path, monkeypatch):
    refuse_names(monkeypatch, 'VideoCapture')
    path = tmp_path / os.fsdecode(b'caf\xe9.mp4')
    path.write_bytes(b'no video')
    said = 'OpenCV opens no video whose path is not UTF-8: rename it'
    with pytest.raises(RuntimeInputError, match=rf'caf\\udce9\.mp4: {said}'):
        next(classified().predict([path]))
    results = [result for _, result in classified().try_predict([path, random_image(8, 9)])]
    assert said in str(results[0]) and not isinstance(results[1], RuntimeInputError)


@pytest.mark.parametrize(
    ('images', 'batch_size', 'message'),
    [
        (None, 1, 'images: expected files, folders, videos, streams or arrays, got None'),
        ([3], 1, 'images: expected files, folders, videos, streams or arrays, got 3'),
        ([[random_image(4, 4)]], 1, 'images: expected files, folders, videos, streams or arrays, got '),
        (random_image(4, 4), '2', "batch_size must be a whole number from 1 to 1024, got '2'"),
        (random_image(4, 4), True, 'batch_size must be a whole number from 1 to 1024, got True'),
        (random_image(4, 4), 10**9, 'batch_size must be a whole number from 1 to 1024, got 1000000000'),
        (np.zeros((4, 4, 3)), 1, r'an array must be \[height, width, 3\] of uint8'),
        ('absent', 1, 'absent: no such file'),
        ('absent.mp4', 1, 'absent.mp4: no such file, or no video that OpenCV can read'),
        ('a' * 300 + '.png', 1, 'File name too long'),
    ],
)
def test_arguments_of_the_wrong_kind(images, batch_size, message):
    with pytest.raises(RuntimeInputError, match=message):
        list(classified().predict(images, batch_size))


@pytest.mark.parametrize('threads', [0, -1, 1.5, '2', True, 10**6])
def test_threads_of_the_wrong_kind(threads, tmp_path):
    with pytest.raises(RuntimeInputError, match='threads must be a whole number from 1 to 1024, got '):
        Session(tmp_path / 'net.onnx', threads)
    with pytest.raises(RuntimeInputError, match='file: expected the name of a file, got NoneType'):
        Session(None)


def test_names_reach_the_terminal_without_control_characters():
    assert str(RuntimeInputError('a\x1b]0;x\x07\nb\u202e\udcff é')) == r'a\x1b]0;x\x07\nb\u202e\udcff é'


def test_keypoints_of_maps_that_are_smaller_than_the_input():
    """A bottom-up network without restored size, of an image that was resized and filled up."""
    grouping = dict(max_num_people=30, nms_kernel=5, detection_threshold=0.1, tag_threshold=1.0)
    grouping |= dict(ignore_too_much=False, adjust=False, refine=False, keypoint_order=None)
    task = {**TASK, 'kind': 'pose', 'outputs': ['heatmaps', 'tags'], 'grouping': grouping}
    heatmaps = np.zeros((1, 1, 16, 24), np.float32)
    heatmaps[0, 0, 8, 12] = 1

    def run(arrays):
        assert arrays['image'].shape == (1, 3, 64, 96)
        return {'heatmaps': heatmaps, 'tags': np.zeros((1, 1, 1, 16, 24), np.float32)}

    rule = {**RULE, 'divisor': 32, 'pads': True}
    steps = [{'op': 'resize', 'scale': [80, 60], 'keep_ratio': False}]
    session = Session.of(described(steps=steps, batch=rule, tasks=[task]), run, 'net')
    (keypoint,) = next(session.predict(random_image(120, 160))).tasks['']['keypoints'][0]
    np.testing.assert_allclose(keypoint, [96.5, 64.5])  # 12 and 8 of cells of 4 pixels, each of 2 of the image


def test_results_of_a_former_run_stay_if_all_images_fail(tmp_path, monkeypatch):
    from icconv_mm_runtime import __main__ as command

    monkeypatch.setattr(command, 'Session', lambda *_: classified())
    (tmp_path / 'predictions.json').write_text('[1]')
    for images, message in {('a',): 'error: a: no such file', ('a', 'b'): 'error: all 2 images failed:\n  a: '}.items():
        with pytest.raises(SystemExit) as end:
            command.main(['net.onnx', *images, '--out-dir', str(tmp_path)])
        assert str(end.value).startswith(message) and (tmp_path / 'predictions.json').read_text() == '[1]'


def test_a_result_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    """The message has the path of the result, neither that of the image nor that of a temporary file."""
    from icconv_mm_runtime import __main__ as command

    monkeypatch.setattr(command, 'Session', lambda *_: classified())
    image, out = tmp_path / 'a.png', tmp_path / 'out'
    cv2.imwrite(str(image), random_image(20, 30))
    for taken, said in (('vis/a.png', 'Is a directory'), ('predictions.json', 'Is a directory')):
        (out / taken).mkdir(parents=True)
        with pytest.raises(SystemExit) as end:
            command.main(['net.onnx', str(image), '--out-dir', str(out)])
        assert end.value.code == f'error: {out / taken}: {said}'
        (out / taken).rmdir()
    (tmp_path / 'file').write_text('')
    with pytest.raises(SystemExit) as end:
        command.main(['net.onnx', str(image), '--out-dir', str(tmp_path / 'file')])
    assert end.value.code == f'error: {tmp_path}/file/vis: Not a directory'


def test_images_of_a_second_run_replace_those_of_the_first(tmp_path):
    import argparse

    from icconv_mm_runtime import __main__ as command

    for folder in 'ab':
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / 'x.png'), random_image(20, 30, ord(folder)))
    session = Session.of(described(), lambda inputs: {'scores': np.ones((len(inputs['image']), 2), np.float32)}, 'net')
    arguments = argparse.Namespace(file='', threads=None, batch_size=1, score_thr=0.3, json_score_thr=0.0, draw=True)
    arguments.device = arguments.tile = arguments.max_images = None
    arguments.images, arguments.out_dir = [tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, 'Session', lambda *_: session)
        for _ in range(2):
            command.predict_files(arguments)
    assert sorted(file.name for file in (tmp_path / 'out' / 'vis').iterdir()) == ['2_x.png', 'x.png']


def test_former_names_of_results():
    """Code of earlier versions imports them."""
    from icconv_mm_runtime import Prediction, Result, outputs, results

    assert Prediction is Result is results.Result and results.decode is outputs.decode
    with pytest.raises(AttributeError, match='has no attribute'):
        _ = results.encode
