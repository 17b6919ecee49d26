"""``icconv predict``: with an exported file, for other tools, and by several processes."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('mmengine')
pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

from PIL import Image
from small_network import write_network

from icconv_mm import annotations
from icconv_mm.app import commands
from icconv_mm.app.prediction.coco_results import TaskResults
from icconv_mm.app.prediction.exported import ExportedNetwork
from icconv_mm.app.prediction.pre_annotations import write_pre_annotations
from icconv_mm.app.runs.images import Video, VideoWriter
from icconv_mm_runtime.coco import coco_records
from icconv_mm_runtime.drawing import drawing_of

COUNT = 7


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A network of boxes, masks, a map, keypoints and classes, and images."""
    root, random = tmp_path_factory.mktemp('predict'), np.random.default_rng(0)
    write_network(root / 'network.onnx')
    write_network(root / 'map.onnx', 'map')
    (root / 'images').mkdir()
    for number in range(COUNT):
        pixels = random.integers(0, 256, (48, 64, 3), np.uint8)
        cv2.imwrite(str(root / f'images/{number}.png'), pixels)
    return root


def predict(folder: Path, out: Path, *words: str, network: str = 'network.onnx') -> None:
    commands.main(['predict', str(folder / network), str(folder / 'images'), '--out-dir', str(out), *words])


def files(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob('*.json')}


@pytest.fixture(scope='module')
def one_run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp('one_run')
    predict(folder, out)
    return out


def test_an_exported_file_predicts_as_the_runtime_does(folder, one_run, tmp_path):
    from icconv_mm_runtime.__main__ import main

    main([str(folder / 'network.onnx'), str(folder / 'images'), '--out-dir', str(tmp_path)])
    assert files(one_run).keys() == files(tmp_path).keys() and len(files(one_run)) == 10
    for name, content in files(one_run).items():
        assert json.loads(content) == json.loads(files(tmp_path)[name]), name
    for path in (tmp_path / 'vis').iterdir():
        np.testing.assert_array_equal(cv2.imread(str(path)), cv2.imread(str(one_run / 'vis' / path.name)))


@pytest.mark.parametrize('order', [(1, 2, 3), (3, 1, 2)])
def test_shards_join_to_the_same_files(folder, one_run, tmp_path, order):
    for number in order:
        assert files(tmp_path) == {}
        predict(folder, tmp_path, '--shard', f'{number}/3')
    assert files(tmp_path) == files(one_run)
    assert {path.name for path in tmp_path.iterdir()} == {*files(one_run), 'vis'}
    assert len(list((tmp_path / 'vis').iterdir())) == COUNT


def test_processes_of_torchrun_are_shards(folder, one_run, tmp_path, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    for rank in '01':
        monkeypatch.setenv('RANK', rank)
        predict(folder, tmp_path, '--no-draw')
    assert files(tmp_path) == files(one_run)


def test_more_shards_than_images(folder, one_run, tmp_path):
    for number in range(1, COUNT + 3):
        predict(folder, tmp_path, '--shard', f'{number}/{COUNT + 2}', '--no-draw')
    assert files(tmp_path) == files(one_run)


def test_a_process_that_is_killed_as_it_joins_stops_no_other_run(folder, one_run, tmp_path):
    """What it was joining is given back, and those that ran before need not run again."""
    predict(folder, tmp_path, '--shard', '1/2', '--no-draw')
    (parts,) = (tmp_path / '.results').iterdir()
    parts.rename(parts.with_name(f'{parts.name}.0123.joining'))
    predict(folder, tmp_path, '--shard', '2/2', '--no-draw')
    assert files(tmp_path) == files(one_run) and not (tmp_path / '.results').exists()


def test_shards_of_another_run_are_not_joined(folder, one_run, tmp_path):
    predict(folder, tmp_path, '--shard', '1/2', '--no-draw', '--json-score-thr', '1')
    predict(folder, tmp_path, '--shard', '2/2', '--no-draw')
    assert files(tmp_path) == {}
    predict(folder, tmp_path, '--shard', '1/2', '--no-draw')
    assert files(tmp_path) == files(one_run)


def test_shards_of_changed_images_are_not_joined(folder, tmp_path):
    images = tmp_path / 'images'
    shutil.copytree(folder / 'images', images)
    words = 'predict', str(folder / 'network.onnx'), str(images), '--out-dir', str(tmp_path / 'out'), '--no-draw'
    commands.main([*words, '--shard', '1/2'])
    cv2.imwrite(str(images / '0.png'), np.zeros((24, 32, 3), np.uint8))
    commands.main([*words, '--shard', '2/2'])
    assert files(tmp_path / 'out') == {}
    commands.main([*words, '--shard', '1/2'])
    (first, *_) = json.loads((tmp_path / 'out/images.boxes.json').read_text())['images']
    assert (first['width'], first['height']) == (32, 24)


def test_images_of_equal_names_are_told_apart(folder, tmp_path):
    from icconv_mm_runtime.__main__ import main

    given = []
    for name in ('a', 'b/c'):
        given.append(tmp_path / 'images' / name / '0.png')
        given[-1].parent.mkdir(parents=True)
        shutil.copy(folder / 'images/0.png', given[-1])
    network, pattern, end = str(folder / 'network.onnx'), str(tmp_path / 'images/**/*.png'), ('--no-draw', '--out-dir')
    commands.main(['predict', network, pattern, *end, str(tmp_path / 'out')])
    main([network, *map(str, given), *end, str(tmp_path / 'other')])
    for out in ('out', 'other'):
        images = json.loads((tmp_path / out / 'images.boxes.json').read_text())['images']
        assert [image['file_name'] for image in images] == ['a/0.png', 'b/c/0.png']


def test_a_shard_with_an_image_that_cannot_be_read(folder, one_run, tmp_path):
    """It costs no other image, the last process writes the rest, and the shard can run again."""
    bad, said = folder / 'images/3a.png', []

    def names():
        return [image['file_name'] for image in json.loads((tmp_path / 'images.map.json').read_text())['images']]

    bad.write_bytes(b'no image')
    try:
        for number in (1, 2, 3):
            try:
                predict(folder, tmp_path, '--shard', f'{number}/3', '--no-draw')
            except SystemExit as error:
                said.append(str(error))
                failed = number
        assert len(said) == 1 and 'error: 1 of 3 images failed' in said[0] and '3a.png' in said[0]
        assert names() == [f'{number}.png' for number in range(COUNT)]
        shutil.copy(folder / 'images/3.png', bad)
        predict(folder, tmp_path, '--shard', f'{failed}/3', '--no-draw')
        assert names() == sorted(['3a.png', *(f'{number}.png' for number in range(COUNT))])
        assert {path.name for path in tmp_path.iterdir()} == {*files(tmp_path)}  # no parts are left
    finally:
        bad.unlink()


@pytest.mark.parametrize('to', ['coco', 'yolo', 'labelstudio', 'cvat'])
def test_predictions_are_written_for_other_tools(folder, tmp_path, to, capsys):
    predict(folder, tmp_path, '--to', to, '--no-draw', '--score-thr', '0.5')
    written = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert written == {f'{to}.{task}' for task in ('boxes', 'masks', 'pose')}
    assert all(str(tmp_path / name) in capsys.readouterr().out for name in list(written)[:1])
    records = json.loads((tmp_path / 'predictions.boxes.json').read_text())
    confident = [record['bbox'] for record in records if record['score'] >= 0.5]
    assert 0 < len(confident) < len(records)
    if to == 'labelstudio':  # has no annotations yet
        tasks = json.loads((tmp_path / 'labelstudio.boxes/tasks.json').read_text())
        assert len(tasks) == COUNT and sum(len(task['predictions'][0]['result']) for task in tasks) == len(confident)
        return
    dataset = annotations.read(tmp_path / f'{to}.boxes')
    assert sorted(path.name for path in dataset.images) == [f'{number}.png' for number in range(COUNT)]
    boxes = [annotation.box for _, annotation in dataset.annotations()]
    np.testing.assert_allclose(sorted(boxes), sorted(confident), atol=0.01)
    posed = annotations.read(tmp_path / f'{to}.pose')
    assert posed.keypoints == ['nose', 'tail'] and next(posed.annotations())[1].keypoints is not None


def test_other_tools_get_what_is_drawn(folder, tmp_path):
    """The threshold of each class selects both."""
    import onnx

    network = onnx.load(folder / 'network.onnx')
    (entry,) = (item for item in network.metadata_props if item.key == 'icconv_mm')
    metadata = json.loads(entry.value)
    (boxes,) = (task for task in metadata['tasks'] if task['name'] == 'boxes')
    boxes['thresholds'] = [0.9, None, 0.1]
    entry.value = json.dumps(metadata)
    onnx.save(network, tmp_path / 'network.onnx')
    words = 'predict', str(tmp_path / 'network.onnx'), str(folder / 'images'), '--out-dir', str(tmp_path / 'out')
    commands.main([*words, '--to', 'coco', '--no-draw'])
    dataset = annotations.read(tmp_path / 'out/coco.boxes')
    assert {annotation.name for _, annotation in dataset.annotations()} == {'box', 'cup'}


def drawn_rows(path, records):
    image = dict(id=1, file_name=path.name, width=64, height=48)
    return lambda: [dict(path=str(path), image=image, records={'': []}, drawn={'': records})]


@pytest.mark.parametrize('to', ['coco', 'yolo', 'labelstudio', 'cvat'])
def test_objects_whose_mask_is_empty_are_written_as_boxes(tmp_path, to):
    """As many are where a network has hardly learned."""
    Image.new('RGB', (64, 48)).save(tmp_path / 'a.png')
    description = {'kind': 'instance', 'classes': ['cell'], 'palette': [(1, 2, 3)]}
    part = TaskResults('', description, [1])
    masks = np.zeros((2, 48, 64), bool)
    masks[1, 10:20, 10:30] = True
    result = {'boxes': np.array([[2, 3, 22, 13], [10, 10, 30, 20]], np.float32), 'scores': np.full(2, 0.9),
             'labels': np.zeros(2, int), 'masks': masks}  # fmt: skip
    rows = drawn_rows(tmp_path / 'a.png', coco_records(description, result, 1, 0.0, [1]))
    assert write_pre_annotations(to, part, rows, tmp_path / 'out', copy=True)
    if to == 'labelstudio':
        (task,) = json.loads((tmp_path / 'out/tasks.json').read_text())
        assert {region['type'] for region in task['predictions'][0]['result']} == {'rectanglelabels', 'brushlabels'}
    elif to == 'yolo':  # which holds masks alone or boxes alone
        (lines,) = (tmp_path / 'out').rglob('a.txt')
        assert len(lines.read_text().splitlines()) == 1
    else:
        objects = [annotation for _, annotation in annotations.read(tmp_path / 'out').annotations()]
        assert len(objects) == 2 and sum(annotation.segmentation is not None for annotation in objects) == 1


@pytest.mark.parametrize('scores', [[0.28, 0.28, 0.28], [0.9, 0.28, 0.05]])
def test_keypoints_that_are_drawn_are_written(tmp_path, scores):
    Image.new('RGB', (64, 48)).save(tmp_path / 'a.png')
    description = {'kind': 'pose', 'classes': ['cat'], 'palette': [(1, 2, 3)], 'keypoints': ['left', 'right', 'tail'],
                   'skeleton': [(0, 1)], 'thresholds': [0.2]}  # fmt: skip
    part = TaskResults('', description, [1])
    points = np.array([[[5, 5], [20, 8], [12, 30]]], np.float32)
    result = {'keypoints': points, 'keypoint_scores': np.array([scores], np.float32), 'scores': np.array([0.5])}
    rows = drawn_rows(tmp_path / 'a.png', coco_records(description, result, 1, 0.0, [1]))
    assert write_pre_annotations('coco', part, rows, tmp_path / 'out', copy=True)
    ((_, annotation),) = annotations.read(tmp_path / 'out').annotations()
    (drawn,) = drawing_of(description, result).objects
    assert [seen > 0 for seen in annotation.keypoints[2::3]] == drawn.shown.tolist()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--config', 'a.py'], r'--config: .* is an exported file, which has no config'),
        (['--cfg-options', 'a=1'], r'--cfg-options: .* is an exported file, which has no config'),
        (['--palette', 'coco'], r'--palette: .* is an exported file, which has its own colours'),
    ],
    ids=str,
)
def test_what_an_exported_file_does_not_have(folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.py').touch()
    with pytest.raises(SystemExit, match=message):
        predict(folder, tmp_path, *words)


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--score-thr', '2'], '--score-thr: expected a score from 0 to 1, got 2.0'),
        (['--score-thr', 'nan'], '--score-thr: expected a score from 0 to 1, got nan'),
        (['--json-score-thr', '-1'], '--json-score-thr: expected a score from 0 to 1, got -1.0'),
        (['--batch-size', '0'], '--batch-size: expected 1 or more, got 0'),
        (['--tile', '10'], '--tile: expected 32 pixels or more, got 10'),
        (['--tile', '32'], '^error: --tile: only boxes and segmentation maps are put together again'),
    ],
    ids=str,
)
def test_numbers_that_cannot_be_used(folder, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message):
        predict(folder, tmp_path, *words)


def test_nothing_is_written_for_other_tools_where_nothing_is_drawn(folder, one_run, tmp_path, capsys):
    predict(folder, tmp_path, '--to', 'coco', '--no-draw', '--score-thr', '1')
    assert files(tmp_path) == files(one_run) and not (tmp_path / 'coco.boxes').exists()
    assert 'coco' not in capsys.readouterr().out


def test_a_map_is_not_for_other_tools(folder, tmp_path):
    with pytest.raises(SystemExit, match='--to: the network predicts no boxes, masks or keypoints'):
        predict(folder, tmp_path, '--to', 'coco', network='map.onnx')


def test_a_folder_that_is_not_empty_is_refused_before_the_work(folder, tmp_path):
    (tmp_path / 'coco.boxes').mkdir()
    (tmp_path / 'coco.boxes/a').touch()
    with pytest.raises(SystemExit, match=r'--out-dir: .*coco\.boxes is not an empty folder'):
        predict(folder, tmp_path, '--to', 'coco')
    assert files(tmp_path) == {}


@pytest.mark.parametrize('shard', ['0/2', '3/2', '1', 'a/b', '1/0'])
def test_what_is_no_shard(folder, tmp_path, shard, capsys):
    with pytest.raises(SystemExit, match='2'):
        predict(folder, tmp_path, '--shard', shard)
    assert 'argument --shard: expected I/N' in capsys.readouterr().err


def test_objects_of_a_video_are_numbered(folder, tmp_path, capsys):
    """In the results and in the drawn video, for each task with boxes."""
    pytest.importorskip('trackers')
    writer = VideoWriter(tmp_path / 'still.mp4', 5)
    image = cv2.imread(str(folder / 'images/0.png'))
    for _ in range(4):
        writer.add(image)
    writer.close()
    records = {}
    for name, words in (('plain', ()), ('tracked', ('--track',))):
        out = tmp_path / name
        commands.main(['predict', str(folder / 'network.onnx'), str(writer.path), '--out-dir', str(out), *words])
        records[name] = json.loads((out / 'predictions.boxes.json').read_text())
    numbers = [record.pop('track_id', None) for record in records['tracked']]
    assert records['tracked'] == records['plain']
    count = len(numbers) // 4  # all score as much as objects that are drawn
    assert count > 1 and numbers == [*[None] * count, *3 * [*range(1, count + 1)]]
    frames = [list(Video(str(tmp_path / name / 'still.mp4')))[-1].image for name in records]
    assert (frames[0] != frames[1]).any()
    assert capsys.readouterr().err.count('100%') == 2  # progress, to the last of the frames


@pytest.mark.parametrize(
    ('network', 'inputs', 'words', 'message'),
    [
        ('network.onnx', 'images', ['--track'], '--track: is for a video, which .*images is not'),
        ('map.onnx', 'still.gif', ['--track'], '--track: a network for semantic has no boxes to track'),
        ('network.onnx', 'still.gif', ['--tile', '32'], '--tile: is for images, not for a video'),
    ],
    ids=str,
)
def test_what_is_for_images_or_for_videos_alone(folder, tmp_path, network, inputs, words, message):
    Image.new('RGB', (64, 48)).save(folder / 'still.gif')
    with pytest.raises(SystemExit, match=message):
        commands.main(['predict', str(folder / network), str(folder / inputs), *words, '--out-dir', str(tmp_path)])


def stop_after(monkeypatch, count, error=KeyboardInterrupt):
    from icconv_mm.app.prediction import image_run

    def until(*given):
        yield from itertools.islice(ahead(*given), count)
        raise error

    ahead = image_run.ahead
    monkeypatch.setattr(image_run, 'ahead', until)


@pytest.mark.parametrize('is_stream', [False, True])
def test_a_video_that_is_ended_early_is_interrupted_unless_it_has_no_other_end(
    folder, tmp_path, monkeypatch, is_stream
):
    from icconv_mm.app.prediction import video_run

    def until(*given):
        yield from itertools.islice(predict_each(*given), 3)
        raise KeyboardInterrupt  # as SIGTERM does

    predict_each = video_run.predict_each
    monkeypatch.setattr(video_run, 'predict_each', until)
    writer = VideoWriter(tmp_path / 'clip.mp4', 5)
    for value in range(6):
        writer.add(np.full((48, 64, 3), 40 * value, np.uint8))
    writer.close()
    if is_stream:
        monkeypatch.setattr(video_run.Video, '__init__', _endless(video_run.Video.__init__))
    words = ['predict', str(folder / 'network.onnx'), str(tmp_path / 'clip.mp4'), '--out-dir', str(tmp_path / 'out')]
    if is_stream:
        commands.main(words)
    else:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            commands.main(words)
    assert len(json.loads((tmp_path / 'out' / 'images.boxes.json').read_text())['images']) == 3


def _endless(begin):
    def changed(video, text):
        begin(video, text)
        video.frames = None

    return changed


def test_an_interrupt_leaves_the_results_until_then(folder, tmp_path, monkeypatch):
    stop_after(monkeypatch, 3)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        predict(folder, tmp_path, '--to', 'coco')
    images = json.loads((tmp_path / 'images.boxes.json').read_text())['images']
    assert [image['file_name'] for image in images] == ['0.png', '1.png', '2.png']
    assert not (tmp_path / 'coco.boxes').exists()


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'full')])
@pytest.mark.parametrize('words', [(), ('--to', 'coco'), ('--shard', '1/1')])
def test_a_run_goes_on_where_it_was_ended(folder, one_run, tmp_path, monkeypatch, error, words):
    """The images that are there are not predicted again, and all files are those of one go."""
    with monkeypatch.context() as patch:
        stop_after(patch, 3, error)
        with pytest.raises((KeyboardInterrupt, SystemExit, OSError)):
            predict(folder, tmp_path, *words)
    (lines,) = tmp_path.rglob('*.jsonl')
    with open(lines, 'a') as file:
        file.write('{"number": 3, "path"')  # a line that was cut
    asked = []
    with monkeypatch.context() as patch:
        read = ExportedNetwork.read
        patch.setattr(ExportedNetwork, 'read', lambda network, path: read(network, asked.append(path) or path))
        predict(folder, tmp_path, *words, '--resume')
    assert [path.name for path in asked] == [f'{number}.png' for number in range(3, COUNT)]
    assert files(tmp_path) == files(one_run) and not (tmp_path / '.results').exists()
    assert sorted(path.name for path in (tmp_path / 'vis').iterdir()) == [f'{number}.png' for number in range(COUNT)]


def test_other_settings_and_changed_images_begin_anew(folder, tmp_path, monkeypatch):
    images = tmp_path / 'images'
    shutil.copytree(folder / 'images', images)
    words = ['predict', str(folder / 'network.onnx'), str(images), '--out-dir', str(tmp_path / 'out'), '--no-draw']
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            commands.main(words)
    cv2.imwrite(str(images / '0.png'), np.zeros((24, 32, 3), np.uint8))
    asked = []
    with monkeypatch.context() as patch:
        read = ExportedNetwork.read
        patch.setattr(ExportedNetwork, 'read', lambda network, path: read(network, asked.append(path) or path))
        commands.main([*words, '--resume', '--json-score-thr', '0.5'])
        commands.main([*words, '--resume'])
    assert [path.name for path in asked[COUNT:]] == ['0.png', '3.png', '4.png', '5.png', '6.png']
    (first, *_) = json.loads((tmp_path / 'out/images.boxes.json').read_text())['images']
    assert (first['width'], first['height']) == (32, 24)


def test_sigterm_ends_as_ctrl_c_does(folder, tmp_path):
    """What is predicted until then is there."""
    code = (
        'import os, signal, sys\n'
        'from icconv_mm.app import commands\n'
        'from icconv_mm.app.prediction import image_run as module\n'
        'known = module._ImageRun._row\n'
        'def row(self, path, *given):\n'
        "    if path.name == '3.png': os.kill(os.getpid(), signal.SIGTERM)\n"
        '    return known(self, path, *given)\n'
        'module._ImageRun._row = row; commands.main(sys.argv[1:])'
    )
    words = ['predict', str(folder / 'network.onnx'), str(folder / 'images'), '--out-dir', str(tmp_path), '--no-draw']
    ended = subprocess.run([sys.executable, '-c', code, *words], capture_output=True, text=True)
    assert ended.returncode == 130 and 'Traceback' not in ended.stderr
    assert len(json.loads((tmp_path / 'images.boxes.json').read_text())['images']) == 3


@pytest.mark.parametrize('levels', [3, 70, 200])
def test_images_in_deep_folders_are_written_for_other_tools(levels, folder, tmp_path):
    deep = tmp_path.joinpath(*(f'd{level}' for level in range(levels)))
    deep.mkdir(parents=True)
    for number in range(2):
        shutil.copy(folder / f'images/{number}.png', deep)
    words = ['--to', 'coco', '--no-draw', '--out-dir', str(tmp_path / 'out')]
    commands.main(['predict', str(folder / 'network.onnx'), str(deep), *words])
    assert sorted(path.name for path in (tmp_path / 'out/coco.boxes').rglob('*.png')) == ['0.png', '1.png']
