"""Streams, pairs of names and content, batches of one size, tiles, devices and times of a session."""

import json
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from described import TASK, described, random_image
from small_network import write_network

from icconv_mm_runtime import RuntimeInputError, Session, drawing
from icconv_mm_runtime import __main__ as command
from icconv_mm_runtime.tiling import joined_boxes, joined_maps, tile_corners


class Capture:
    """An OpenCV capture of three frames, of a source of a known length or of none."""

    length, opened = -1.0, []

    def __init__(self, source):
        self.opened.append(source)
        self.left = [random_image(8, 9, number) for number in range(3)]

    def read(self):
        return (True, self.left.pop(0)) if self.left else (False, None)

    def get(self, key):
        return {cv2.CAP_PROP_FRAME_COUNT: self.length, cv2.CAP_PROP_FPS: 2.0}[key]

    def release(self):
        self.opened.append('released')


def means(seen=None):
    """A session whose network gives the mean of blue and of green, and notes the sizes of its batches."""

    def run(given):
        if seen is not None:
            seen.append(given['image'].shape)
        return {'scores': given['image'][:, :2].mean((2, 3)).astype('f4')}

    return Session.of(described(), run, 'net')


@pytest.fixture
def capture(monkeypatch):
    monkeypatch.setattr(cv2, 'VideoCapture', Capture)
    monkeypatch.setattr(Capture, 'opened', [])
    return Capture


def test_a_lost_stream_is_reported(capture):
    for source, opened, name in (('rtsp://host/a', 'rtsp://host/a', 'stream'), ('0', 0, 'camera_0')):
        capture.opened.clear()
        tried = list(means().try_predict(source))
        assert [path for path, _ in tried] == [*(f'{name}_{n:06d}.jpg' for n in (1, 2, 3)), source]
        assert str(tried[-1][1]) == f'{source}: the stream ended after 3 frames' and opened in capture.opened
        with pytest.raises(RuntimeInputError, match='the stream ended after 3 frames'):
            list(means().predict([source]))
    stream = means().predict('rtsp://host/a')
    next(stream)
    stream.close()
    assert capture.opened[-1] == 'released'


@pytest.mark.parametrize(('length', 'is_lost'), [(3.0, False), (5.0, False), (6.0, True), (0.0, True)])
def test_a_video_of_a_known_length_is_no_lost_stream(capture, monkeypatch, length, is_lost):
    monkeypatch.setattr(capture, 'length', length)
    results = [result for _, result in means().try_predict('https://host/a.mp4')]
    assert [isinstance(result, RuntimeInputError) for result in results] == [False] * 3 + [True] * is_lost


def test_a_stream_that_does_not_open(tmp_path):
    with pytest.raises(RuntimeInputError, match=r'file:///absent\.mp4: OpenCV cannot read it'):
        next(means().predict('file:///absent.mp4'))


def test_a_file_of_digits_is_no_camera(tmp_path, capture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('0').write_bytes(cv2.imencode('.png', random_image(8, 9))[1])
    assert next(means().predict('0')).image.shape == (8, 9, 3) and not capture.opened
    with pytest.raises(RuntimeInputError, match=rf'{10**20}: no such file'):  # no camera has such a number
        next(means().predict(str(10**20)))
    with pytest.raises(RuntimeInputError, match='images: a name is empty'):  # not the images of this folder
        next(means().predict(''))


def test_the_command_ends_a_stream(capture, tmp_path, monkeypatch, capsys):
    """After a number of frames, or at Ctrl-C; the results until then are written."""
    session, calls = means(), []
    monkeypatch.setattr(command, 'Session', lambda *_: session)
    draw_image = drawing.draw

    def draw(*given):
        calls.append(given)
        if len(calls) == 4:  # the second frame of the second run
            raise KeyboardInterrupt
        return draw_image(*given)

    monkeypatch.setattr(drawing, 'draw', draw)
    for out, options, count in (('a', ['--max-images', '2'], 2), ('b', [], 1)):
        command.main(['net.onnx', 'rtsp://host/a', '--out-dir', str(tmp_path / out), *options])
        images = json.loads((tmp_path / out / 'images.json').read_text())['images']
        names = [f'stream_{number:06d}.jpg' for number in range(1, count + 1)]
        assert [image['file_name'] for image in images] == names
        assert sorted(path.name for path in (tmp_path / out / 'vis').iterdir()) == names
        assert ('interrupted' in capsys.readouterr().err) == (not options)


def test_named_arrays_and_bytes():
    image = random_image(8, 9)
    content = cv2.imencode('.png', image)[1].tobytes()
    tried = dict(means().try_predict([('a', image), ('b', content), ('c', content[:30]), ('d', b'')]))
    np.testing.assert_array_equal(tried['a'].tasks['']['scores'], tried['b'].tasks['']['scores'])
    assert [str(tried[name]) for name in 'cd'] == [f'{name}: is no image, or is damaged' for name in 'cd']
    for wrong in (content, ('a', 'b.png'), ('a', image, 1), (3, image)):
        with pytest.raises(RuntimeInputError, match='images: expected files, folders, videos, streams or arrays, got '):
            list(means().predict([wrong]))


# --- batches and tiles


def test_images_of_one_size_share_a_batch():
    """Although others are between them; the order stays, and few images wait."""
    seen = []
    images = [random_image(8, 9 + number % 3, number) for number in range(12)]
    predictions = list(means(seen).predict(images, batch_size=4))
    assert seen == [(4, 3, 8, width) for width in (9, 10, 11)]
    for number, (image, prediction) in enumerate(zip(images, predictions)):
        assert prediction.path == f'array_{number}'
        np.testing.assert_allclose(prediction.tasks['']['scores'], image[..., :2].mean((0, 1)), rtol=1e-6)
    seen.clear()
    lone = [random_image(5, 5), *(random_image(8, 9) for _ in range(40))]
    results = means(seen).predict(iter(lone), batch_size=2)
    next(results)
    assert sum(shape[0] for shape in seen) <= 16
    assert [result.image.shape[0] for result in results] == [8] * 40


def boxes_of_bright_pixels(given):
    """A network that finds the bright squares of an image, as boxes of the class of their colour."""
    (image,) = given['image']
    boxes, scores, labels = [], [], []
    for label in (0, 1):
        _, _, statistics, _ = cv2.connectedComponentsWithStats((image[label] > 128).astype(np.uint8))
        for x, y, width, height, area in statistics[1:]:
            boxes.append([x, y, x + width, y + height])
            scores.append(min(area / 1000, 1))
            labels.append(label)
    shape = np.array(boxes, np.float32).reshape(1, -1, 4)
    return {'boxes': shape, 'scores': np.float32([scores]), 'labels': np.array([labels], int)}


def test_boxes_of_tiles():
    image = np.zeros((90, 150, 3), np.uint8)
    truth = {(5, 5, 25, 25, 0), (50, 40, 62, 60, 1), (120, 60, 148, 88, 0)}
    for left, top, right, below, label in truth:
        image[top:below, left:right, label] = 255
    task = {**TASK, 'kind': 'detection', 'outputs': ['boxes', 'scores', 'labels']}
    session = Session.of(described(tasks=[task]), boxes_of_bright_pixels, 'net')
    (whole,), (tiled,) = list(session.predict(image)), list(session.predict(image, tile=64))
    for result in (whole.tasks[''], tiled.tasks['']):
        inside = {(*map(int, box), int(label)) for box, label in zip(result['boxes'], result['labels'])}
        assert truth <= inside
    assert tiled.tasks['']['scores'].tolist() == sorted(tiled.tasks['']['scores'], reverse=True)
    assert tiled.image is image and tiled.path == 'array'


def seen_in(tile, corner, size, boxes, scores, labels):
    """What a detector that makes no mistake finds in a tile: the visible part of each object."""
    top, left = corner
    high = np.minimum([left + tile, top + tile], size[::-1])
    cut = boxes.clip([left, top] * 2, [*high, *high])
    there = (cut[:, 2:] - cut[:, :2] >= 1).all(1)
    values = {'scores': scores[there], 'labels': labels[there]}
    return {'boxes': (cut[there] - [left, top, left, top]).astype(np.float32), **values}


@pytest.mark.parametrize('seed', range(40))
def test_objects_do_not_depend_on_the_tiles(seed):
    """Objects that overlap by any amount, smaller than what two tiles share."""
    random = np.random.default_rng(seed)
    tile, size = int(random.integers(64, 200)), random.integers(40, 500, 2)
    most, count = max(3, int(tile * 0.2) - 1), int(random.integers(1, 120))
    sides = random.integers(2, most, (count, 2))
    start = random.integers(0, np.maximum(1, size[::-1] - sides))
    boxes = np.concatenate([start, start + sides], 1).clip(0, [*size[::-1]] * 2).astype(float)
    boxes = np.unique(boxes, axis=0)
    scores, labels = random.random(len(boxes)).astype('f4'), random.integers(0, 2, len(boxes))
    corners = tile_corners(size, tile)
    parts = [seen_in(tile, corner, size, boxes, scores, labels) for corner in corners]
    result = joined_boxes(parts, corners, size, tile)
    order = np.argsort(-scores, kind='stable')
    np.testing.assert_array_equal(result['boxes'], boxes[order])
    np.testing.assert_array_equal(result['labels'], labels[order])
    empty = [{name: part[name][:0] for name in part} for part in parts]
    assert joined_boxes(empty, corners, size, tile)['boxes'].shape == (0, 4)


@pytest.mark.parametrize('seed', range(20))
def test_crowds_whose_scores_differ_between_tiles(seed):
    """Objects that overlap by up to two thirds are counted once each."""
    random = np.random.default_rng(seed)
    tile, size, boxes = 160, (300, 420), np.zeros((0, 4))
    while len(boxes) < 60:
        sides = random.integers(8, 30, 2)
        start = random.integers(0, np.array(size[::-1]) - sides)
        box = np.concatenate([start, start + sides])[None].astype(float)
        if not len(boxes) or _iou(box, boxes).max() < 0.65:
            boxes = np.concatenate([boxes, box])
    scores, labels = random.uniform(0.5, 0.8, len(boxes)), np.zeros(len(boxes), int)
    corners = tile_corners(size, tile)
    parts = [seen_in(tile, corner, size, boxes, scores, labels) for corner in corners]
    for part in parts:
        part['scores'] = (part['scores'] + random.uniform(-0.1, 0.1, len(part['scores']))).astype('f4')
    result = joined_boxes(parts, corners, size, tile)['boxes']
    assert sorted(map(tuple, result.tolist())) == sorted(map(tuple, boxes.tolist()))


def _iou(box, others):
    common = (np.minimum(box[:, 2:], others[:, 2:]) - np.maximum(box[:, :2], others[:, :2])).clip(0).prod(1)
    return common / ((box[:, 2:] - box[:, :2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - common)


def test_boxes_that_a_network_told_apart_in_one_tile_stay():
    boxes = np.float32([[10, 10, 30, 30], [12, 10, 32, 30]])  # an IoU of 0.8
    part = {'boxes': boxes, 'scores': np.float32([0.9, 0.8]), 'labels': np.int64([0, 0])}
    for corners, size in ([[(0, 0)], (64, 64)], [[(0, 0), (0, 36)], (64, 100)]):
        others = [{name: values[:0] for name, values in part.items()}] * (len(corners) - 1)
        np.testing.assert_array_equal(joined_boxes([part, *others], corners, size, 64)['boxes'], boxes)


def test_an_object_whose_boxes_differ_between_tiles_is_there_once_with_its_better_score():
    one = {'boxes': np.float32([[40, 10, 60, 30]]), 'scores': np.float32([0.7]), 'labels': np.int64([0])}
    other = {'boxes': np.float32([[6, 11, 25, 30]]), 'scores': np.float32([0.9]), 'labels': np.int64([0])}
    result = joined_boxes([one, other], [(0, 0), (0, 36)], (64, 100), 64)
    np.testing.assert_array_equal(result['boxes'], [[42, 11, 61, 30]])


def test_maps_of_tiles():
    size = (90, 150)
    truth = np.arange(size[0] * size[1]).reshape(size) // 97 % 7
    corners = tile_corners(size, 64)
    parts = [{'seg_map': truth[top : top + 64, left : left + 64]} for top, left in corners]
    np.testing.assert_array_equal(joined_maps(parts, corners, size, 64)['seg_map'], truth)


def test_tiles_of_other_tasks_are_refused(tmp_path):
    with pytest.raises(RuntimeInputError, match='tile: only boxes and segmentation maps are put together again'):
        next(means().predict(random_image(8, 9), tile=4))
    with pytest.raises(RuntimeInputError, match='tile must be a whole number from 1 to 32766, got 0'):
        next(means().predict(random_image(8, 9), tile=0))
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    session = Session(write_network(tmp_path / 'net.onnx', 'boxes', 'map', steps=[]))
    tried = list(session.try_predict(['absent.png', ('a', random_image(50, 70))], batch_size=3, tile=40))
    assert isinstance(tried[0][1], RuntimeInputError) and tried[1][1].tasks['map']['seg_map'].shape == (50, 70)


# --- devices and times


def test_a_device_that_is_not_there(tmp_path):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    file = write_network(tmp_path / 'net.onnx', 'class', steps=[])
    image = random_image(8, 9)
    (expected,) = Session(file).predict(image)
    for device in ('cpu', 'CPU'):
        (prediction,) = Session(file, device=device).predict(image)
        np.testing.assert_array_equal(prediction.tasks['']['scores'], expected.tasks['']['scores'])
    for device in ('tpu', 'cpu:1', 'openvino:tpu', ''):
        with pytest.raises(RuntimeInputError, match=rf"net\.onnx: there is no device '{device}'; there are: cpu"):
            Session(file, device=device)
    with pytest.raises(RuntimeInputError, match='device must be a name such as cpu or cuda:0, got 3'):
        Session(file, device=3)


def test_a_device_of_openvino(tmp_path):
    pytest.importorskip('openvino')
    pytest.importorskip('onnx')
    file = write_network(tmp_path / 'net.onnx', 'class', steps=[])
    image = random_image(8, 9)
    (expected,) = Session(file).predict(image)
    for device in ('openvino', 'openvino:CPU'):
        (prediction,) = Session(file, device=device).predict(image)
        np.testing.assert_allclose(prediction.tasks['']['scores'], expected.tasks['']['scores'], rtol=1e-5)


def test_no_device_is_replaced_by_the_processor_silently(tmp_path, monkeypatch):
    """ONNX Runtime only logs that it takes the processor if the libraries of a provider do not load."""
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnx')
    file, asked = write_network(tmp_path / 'net.onnx', 'class', steps=[]), []
    open_session = onnxruntime.InferenceSession

    def opened(path, options, providers, enable_fallback):
        asked.append((providers, enable_fallback))
        return open_session(path, options, providers=['CPUExecutionProvider'])

    names = [f'{name}ExecutionProvider' for name in ('Tensorrt', 'CUDA', 'CPU')]
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: names)
    monkeypatch.setattr(onnxruntime, 'InferenceSession', opened)
    with pytest.raises(RuntimeInputError, match=r"no device 'cuda:1' \(its libraries do not load\); there are: cpu"):
        Session(file, device='cuda:1')
    with pytest.raises(RuntimeInputError, match="there is no device 'tensorrt'"):
        Session(file, device='tensorrt')
    cuda, tensorrt = asked
    assert cuda == ([(names[1], {'device_id': '1'}), (names[2], {})], False)
    assert tensorrt == ([(name, {}) for name in names], False)
    Session(file, device='cpu')


def test_times(tmp_path, capsys, monkeypatch):
    """Every step is timed as often as said, with the batch size; the units are milliseconds and images."""
    seen, clock = [], iter(np.arange(1e6) ** 2)
    monkeypatch.setattr('icconv_mm_runtime.benchmark.time', types.SimpleNamespace(perf_counter=lambda: next(clock)))
    session = means(seen)
    timing = session.benchmark([random_image(8, 9), random_image(10, 9)], batch_size=3, runs=20)
    assert seen == [(3, 3, 8, 9), (3, 3, 10, 9)] * 11 and timing.runs == 20 and timing.batch_size == 3
    starts = np.arange(2, 22) * 4  # clock readings at the start of each timed run
    for number, times in enumerate((timing.preprocess, timing.network, timing.postprocess)):
        taken = ((starts + number + 1) ** 2 - (starts + number) ** 2) * 1e3
        assert (times.low, times.median, times.high) == pytest.approx(tuple(np.percentile(taken, (10, 50, 90))))
    assert timing.images_per_second == pytest.approx(3 / np.median((starts + 3) ** 2 - starts**2))
    monkeypatch.setattr(command, 'Session', lambda *_: session)
    command.main(['net.onnx', '--benchmark', '--batch-size', '2'])
    assert seen[-1] == (2, 3, 480, 640) and 'images per second, 2 in a batch' in capsys.readouterr().out
    with pytest.raises(RuntimeInputError, match='runs must be a whole number from 1 to 1000000, got 0'):
        session.benchmark(runs=0)
    with pytest.raises(RuntimeInputError, match='images: there are none'):
        session.benchmark([])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ('', 'images and --out-dir are required, or --web or --benchmark'),
        ('a.png', 'images and --out-dir are required'),
        ('--out-dir x', 'images and --out-dir are required'),
        ('a.png --out-dir x --max-images 0', '--max-images must be 1 or more'),
        ('a.png --out-dir x --score-thr nan', 'argument --score-thr: expected a score from 0 to 1, got nan'),
        ('a.png --out-dir x --score-thr 2', 'argument --score-thr: expected a score from 0 to 1, got 2'),
        ('a.png --out-dir x --json-score-thr inf', 'argument --json-score-thr: expected a score from 0 to 1, got inf'),
        ('--serve', '--serve: no effect without --web'),
        ('a.png --out-dir x --single-file', '--single-file: no effect without --web'),
        ('a.png --web x', 'images: no effect with --web'),
        ('--web x --benchmark', '--benchmark: no effect with --web'),
        ('--web x --device cpu', '--device: no effect with --web'),
        ('--benchmark --serve', '--serve: no effect without --web'),
        ('--benchmark --out-dir x', '--out-dir: no effect with --benchmark'),
        ('--benchmark --no-draw', '--no-draw: no effect with --benchmark'),
        ('--benchmark a.png --tile 64', '--tile: no effect with --benchmark'),
        *((f'--web x --serve {port}', f'expected a port from 0 to 65535, got {port}') for port in ('65536', '-1', 'a')),
    ],
)
def test_arguments_of_the_command(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        command.main(['net.onnx', *arguments.split()])
    assert end.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('arguments', [['a.png', '--out-dir', 'x'], ['--benchmark']])
def test_an_interruption_has_no_traceback(arguments, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, 'Session', interrupted)
    with pytest.raises(SystemExit) as end:
        command.main(['net.onnx', *arguments])
    assert end.value.code == 130 and capsys.readouterr().err == '\ninterrupted\n'
