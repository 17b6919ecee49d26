"""What runs exported files: without torch, and with the numbers of the libraries."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from icconv_mm_runtime import RuntimeInputError, Session, limits
from icconv_mm_runtime.coco import coco_records, encode_rle
from icconv_mm_runtime.grouping import assignment
from icconv_mm_runtime.images import Sample, preprocess
from icconv_mm_runtime.results import decode, paste

TASK = {'name': '', 'kind': 'classification', 'outputs': ['scores'], 'classes': ['ball', 'box'], 'palette': None}
RULE = {'divisor': 1, 'pads': False, 'sized': False, 'fixed': None}


def described(**changes):
    return {'schema': 1, 'steps': [], 'batch': RULE, 'tasks': [TASK], **changes}


def random_image(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_it_imports_neither_torch_nor_openmmlab_nor_scipy(repo):
    code = (
        'import sys, time\n'
        'for name in "torch mmengine mmcv mmdet mmseg mmpose scipy icconv_mm".split(): sys.modules[name] = None\n'
        'import cv2, numpy\n'
        'begin = time.process_time()\n'
        'import icconv_mm_runtime.__main__\n'
        'assert time.process_time() - begin < 0.5\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={'PYTHONPATH': str(repo)})
    assert done.returncode == 0, done.stderr


# --- images


@pytest.mark.parametrize('size', [(427, 640), (640, 427), (33, 500)])
@pytest.mark.parametrize('scales', [[1], [2, 1, 0.5]])
def test_a_pyramid_is_that_of_the_transform(size, scales):
    transforms = pytest.importorskip('icconv_mm.tasks.pose.datasets')
    image = random_image(*size)
    known = transforms.MultiScaleResize((128, 160), scales, size_divisor=32).transform({'img': image})
    step = {'op': 'pyramid', 'input_size': [128, 160], 'scales': scales, 'size_divisor': 32, 'stride': 32}
    made = preprocess(Sample('', image), [step])
    for own, other in zip(made.levels, known['img'], strict=True):
        np.testing.assert_array_equal(own, other)
    base, center, extent = made.region
    assert base == known['input_size']
    np.testing.assert_array_equal(center, known['input_center'])
    np.testing.assert_array_equal(extent, known['input_scale'])


@pytest.mark.parametrize('size', [(427, 640), (640, 427), (31, 31)])
def test_steps_are_those_of_mmcv_and_its_kin(size):
    mmcv = pytest.importorskip('mmcv.transforms')
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import TRANSFORMS

    image = random_image(*size)
    pairs = [
        (mmcv.Resize(scale=(200, 90), keep_ratio=True), {'op': 'resize', 'scale': [200, 90], 'keep_ratio': True}),
        (mmcv.Resize(scale=(64, 80)), {'op': 'resize', 'scale': [64, 80], 'keep_ratio': False}),
        (
            TRANSFORMS.build(dict(type='ResizeEdge', scale=51, edge='short')),
            {'op': 'resize_edge', 'scale': 51, 'edge': 'short'},
        ),
        (mmcv.CenterCrop((20, 25)), {'op': 'center_crop', 'size': [20, 25]}),
    ]
    for transform, step in pairs:
        known = transform({'img': image})
        made = preprocess(Sample('', image), [step])
        np.testing.assert_array_equal(made.levels[0], known['img'])
        if 'scale_factor' in known:
            assert made.scale == pytest.approx(known['scale_factor'], rel=1e-12)


@pytest.mark.parametrize('size', [(427, 640), (640, 427)])
def test_fitting_is_that_of_mmpose(size):
    transforms = pytest.importorskip('mmpose.datasets.transforms')
    image = random_image(*size)
    known = transforms.BottomupResize((96, 64), pad_val=(114, 114, 114))({'img': image, 'ori_shape': size})
    made = preprocess(Sample('', image), [{'op': 'fit', 'input_size': [96, 64], 'value': [114, 114, 114]}])
    np.testing.assert_array_equal(made.levels[0], known['img'])
    np.testing.assert_array_equal(made.region[2], known['input_scale'])


# --- results


def test_masks_are_pasted_as_mmdet_pastes_them():
    fcn = pytest.importorskip('mmdet.models.roi_heads.mask_heads.fcn_mask_head')
    masks = torch.rand(20, 1, 28, 28)
    corners = torch.rand(20, 2) * 60 - 5
    boxes = torch.cat([corners, corners.clamp(min=0) + torch.rand(20, 2) * 80 + 0.1], 1)
    for mask, box in zip(masks, boxes):
        part, place = fcn._do_paste_mask(mask[None], box[None], 64, 80, skip_empty=True)
        known = np.zeros((64, 80), bool)
        known[place] = (part >= 0.5)[0].numpy()
        assert (paste(mask[0].numpy(), box.numpy(), (64, 80), 0.5) != known).sum() <= 1


@pytest.mark.parametrize('align_corners', [False, True])
def test_logits_are_enlarged_as_torch_enlarges_them(align_corners):
    logits = torch.randn(1, 5, 24, 32)
    cut = torch.nn.functional.interpolate(logits[..., :21, :], (100, 130), mode='bilinear', align_corners=align_corners)
    task = {'kind': 'semantic', 'align_corners': align_corners, 'threshold': None}
    found = decode(task, {'logits': logits.numpy()}, 0, Sample('', random_image(100, 130), valid=(21, 32)))
    assert (found['seg_map'] != cut.argmax(1)[0].numpy()).mean() <= 1e-4


@pytest.mark.parametrize('shape', [(1, 1), (7, 5), (64, 48)])
@pytest.mark.parametrize('share', [0.0, 0.03, 0.5, 1.0])
def test_rle_are_those_of_coco(shape, share, monkeypatch):
    coco = pytest.importorskip('pycocotools.mask')
    mask = np.random.default_rng(1).random(shape) < share
    known = coco.encode(np.asfortranarray(mask, np.uint8))
    large = coco.encode(np.asfortranarray(mask.repeat(3, 0).repeat(2, 1), np.uint8))
    for _ in range(2):
        assert encode_rle(mask) == {'size': list(shape), 'counts': known['counts'].decode()}
        assert encode_rle(mask, (3 * shape[0], 2 * shape[1]))['counts'] == large['counts'].decode()
        monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)  # as where the runtime is alone


def test_the_assignment_is_that_of_scipy_also_where_costs_are_equal():
    known = pytest.importorskip('scipy.optimize').linear_sum_assignment
    random = np.random.default_rng(0)
    for _ in range(300):
        shape = random.integers(1, 9, 2)
        cost = np.round(random.random(shape) * 2) * 100 - random.random(shape[0])[:, None]
        for own, other in zip(assignment(cost), known(cost)):
            np.testing.assert_array_equal(own, other)


def test_records_of_classes():
    records = coco_records(TASK, {'scores': np.array([0.25, 0.75])}, image_id=7)
    assert records == [
        {'image_id': 7, 'category_id': 2, 'score': 0.75},
        {'image_id': 7, 'category_id': 1, 'score': 0.25},
    ]


def test_records_of_boxes_and_seg_maps():
    found = {'boxes': np.array([[1.0, 2.5, 4.00049, 8.0]] * 2), 'scores': np.array([0.123456, 0.1])}
    found['labels'] = np.array([1, 0])
    (record,) = coco_records({'kind': 'detection'}, found, 7, 0.12, category_ids=[30, 20])
    assert record == {'image_id': 7, 'category_id': 20, 'bbox': [1.0, 2.5, 3.0, 5.5], 'score': 0.12346}
    maps = {'seg_map': np.array([[0, 2], [255, 2]])}
    records = coco_records({'kind': 'semantic'}, maps, 7, category_ids=[30, 20, 10])  # 255 is of no class
    assert [record['category_id'] for record in records] == [30, 10]
    assert records[1]['segmentation'] == encode_rle(maps['seg_map'] == 2)


# --- what is refused


def test_a_image_of_every_kind(tmp_path):
    cv2.imwrite(str(tmp_path / 'b.png'), random_image(20, 30))
    cv2.imwrite(str(tmp_path / 'a.jpg'), random_image(20, 30))
    session = Session.of(described(), lambda inputs: {'scores': np.ones((len(inputs['image']), 2), np.float32)}, 'net')
    shapes = [prediction.image.shape for prediction in session.predict([tmp_path, random_image(8, 9)], batch_size=2)]
    assert shapes == [(20, 30, 3), (20, 30, 3), (8, 9, 3)]


@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'', 'is no image, or is damaged'), (b'GIF89a?', 'is no image'), (None, 'no such file')],
)
def test_a_bad_image(content, message, tmp_path):
    path = tmp_path / 'a.jpg'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeInputError, match=message):
        next(Session.of(described(), dict, 'net').predict(path))


def test_a_bad_network():
    broken = Session.of(described(), lambda inputs: {'scores': np.full((1, 2), np.nan, np.float32)}, 'net')
    with pytest.raises(RuntimeInputError, match='net: on array: the output scores is not finite'):
        next(broken.predict(random_image(8, 8)))
    fixed = described(batch={**RULE, 'fixed': [6, 6]})
    with pytest.raises(RuntimeInputError, match='needs an input of 8x9, the file allows 6x6'):
        next(Session.of(fixed, dict, 'net').predict(random_image(8, 9)))
    larger = described(batch={**RULE, 'fixed': [8, 16]})  # which would show a border that no input tells of
    with pytest.raises(RuntimeInputError, match='needs an input of 8x9, the file allows 8x16'):
        next(Session.of(larger, dict, 'net').predict(random_image(8, 9)))
    with pytest.raises(RuntimeInputError, match='batch_size must be a whole number from 1 to 1024, got 0'):
        next(broken.predict(random_image(8, 8), batch_size=0))


POSE = {'kind': 'pose', 'outputs': ['heatmaps', 'tags']}
FIELDS = [
    ({'schema': 'new'}, 'schema must be a whole number from 1 to 1'),
    ({'steps': 3}, 'steps must be a list of 0 to 16 values, got 3'),
    ({'steps': [{'op': 'eval'}]}, 'steps.0.op must be one of resize, resize_edge, .*, got .eval'),
    ({'steps': [{'op': 'resize', 'scale': [9, 9]}]}, 'steps.0.keep_ratio is missing'),
    (
        {'steps': [{'op': 'resize_edge', 'scale': 10**6, 'edge': 'short'}]},
        'steps.0.scale must be a whole number from 1',
    ),
    (
        {'steps': [{'op': 'pad', 'size': [32766, 32766], 'value': [0, 0, 0]}]},
        'steps.0.size must be at most 67108864 pix',
    ),
    ({'steps': [{'op': 'center_crop', 'size': [9, 9], 'by': 1}]}, r'steps.0 must be the fields op, size, got .*by'),
    ({'batch': {**RULE, 'divisor': 0}}, 'batch.divisor must be a whole number from 1 to 32766, got 0'),
    ({'batch': {**RULE, 'pads': 1}}, 'batch.pads must be true or false, got 1'),
    ({'batch': {**RULE, 'fixed': [1e9, 4]}}, 'batch.fixed.0 must be a whole number'),
    ({'tasks': []}, 'tasks must be a list of 1 to 64 values'),
    ({'tasks': [TASK, TASK]}, 'tasks: expected a name for each'),
    ({'tasks': [{**TASK, 'name': '../x'}]}, 'tasks.0.name must be a part of the name of a file'),
    ({'tasks': [{**TASK, 'name': 'a' * 101}]}, 'tasks.0.name must be a part of the name of a file, of at most 100'),
    ({'tasks': [{**TASK, 'name': '図' * 34}]}, 'tasks.0.name must be a part of the name of a file, of at most 100'),
    ({'tasks': [{**TASK, 'kind': 'pose'}]}, 'the outputs of pose are keypoints, keypoint_scores, scores'),
    ({'tasks': [{**TASK, 'palette': [[0, 0, 256]]}]}, 'tasks.0.palette.0.2 must be a whole number from 0 to 255'),
    ({'tasks': [{**TASK, 'kind': 'instance'}]}, 'tasks.0.mask_threshold is missing'),
    ({'tasks': [{**TASK, **POSE, 'grouping': {'nms_kernel': 10**4}}]}, 'tasks.0.grouping.max_num_people is missing'),
    ({'tasks': [{**TASK, 'skeleton': [[0, -1]]}]}, 'tasks.0.skeleton.0.1 must be a whole number from 0'),
    ({'tasks': [{**TASK, 'classes': ['a' * 1001]}]}, 'tasks.0.classes.0 must be a text of at most 1000 letters, got '),
]


@pytest.mark.parametrize(('change', 'message'), FIELDS)
def test_a_field_of_the_metadata_that_cannot_be_used_is_named(change, message):
    with pytest.raises(RuntimeInputError, match=f'net: its metadata: {message}'):
        Session.of(described(**change), dict, 'net')


@pytest.mark.parametrize('number', [float('nan'), float('inf'), 2.0**64, -1, True, '1', None])
def test_scales_are_finite_numbers(number):
    step = {'op': 'pyramid', 'input_size': [64, 64], 'scales': [1, number], 'size_divisor': 64, 'stride': 32}
    with pytest.raises(RuntimeInputError, match=r'steps.0.scales.1 must be a number from 0.015625 to 64, got '):
        Session.of(described(steps=[step]), dict, 'net')


def test_no_input_is_larger_than_the_limit(tmp_path, monkeypatch):
    """Each image is small, and so is what it becomes; a batch that fills up to the longest of both sides is not."""
    monkeypatch.setattr(limits, 'MAX_INPUT_PIXELS', 1000)
    session = classified(batch={**RULE, 'pads': True})
    images = [random_image(4, 100), random_image(100, 4)]
    with pytest.raises(RuntimeInputError, match='an input of 20000 pixels is too large, at most 1000 are given'):
        list(session.predict(images, batch_size=2))
    assert all(not isinstance(found, RuntimeInputError) for _, found in session.try_predict(images, batch_size=2))
    monkeypatch.setattr(limits, 'MAX_IMAGE_PIXELS', 399)
    with pytest.raises(RuntimeInputError, match='has 100x4 pixels, at most 399 are read'):
        list(session.predict(images[:1]))
    path = tmp_path / 'a.bmp'
    cv2.imwrite(str(path), random_image(4, 4))
    monkeypatch.setattr(limits, 'MAX_IMAGE_BYTES', 100)
    with pytest.raises(RuntimeInputError, match=r'a\.bmp: has 102 bytes, at most 100 are read'):
        list(session.predict(path))


@pytest.mark.parametrize(
    ('outputs', 'message'),
    [
        ({}, 'the network gives no output boxes'),
        ({'boxes': np.zeros((1, 2, 5), 'f4')}, r'boxes must be floats \[1, objects, 4\], got float32 \[1, 2, 5\]'),
        ({'boxes': np.zeros((2, 4), 'f4')}, r'boxes must be floats \[1, objects, 4\], got float32 \[2, 4\]'),
        ({'scores': np.ones((1, 3), 'f4')}, r'scores must be floats \[1, 2\], got float32 \[1, 3\]'),
        ({'scores': np.ones((1, 2), 'S1')}, 'scores must be floats'),
        ({'labels': np.ones((1, 2), 'f4')}, 'labels must be integers'),
        ({'labels': np.full((1, 2), -1)}, 'the output labels has -1 to -1, which are no classes'),
        ({'labels': np.array([[1, 2]])}, 'the output labels has 1 to 2, which are no classes'),
    ],
)
def test_outputs_that_are_not_those_of_the_task_are_named(outputs, message):
    task = {**TASK, 'kind': 'detection', 'outputs': ['boxes', 'scores', 'labels']}
    known = {'boxes': np.zeros((1, 2, 4), 'f4'), 'scores': np.ones((1, 2), 'f4'), 'labels': np.zeros((1, 2), int)}
    session = Session.of(described(tasks=[task]), lambda _: known, 'net')
    assert len(next(session.predict(random_image(8, 9))).tasks['']['boxes']) == 2
    known = {**known, **outputs} if outputs else {}
    with pytest.raises(RuntimeInputError, match=f'net: on array: .*{message}'):
        next(session.predict(random_image(8, 9)))


def test_classes_that_the_file_does_not_name():
    scores = np.ones((1, 3), 'f4')
    with pytest.raises(RuntimeInputError, match='net: on array: the network gives 3 classes, the metadata name 2'):
        next(Session.of(described(), lambda _: {'scores': scores}, 'net').predict(random_image(8, 9)))
    unnamed = Session.of(described(tasks=[{**TASK, 'classes': []}]), lambda _: {'scores': scores}, 'net')
    assert next(unnamed.predict(random_image(8, 9))).tasks['']['scores'].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ('limit', 'task', 'message'),
    [
        ({'MAX_MASK_PIXELS': 100}, 'instance', 'the masks have 144 pixels, at most 100 are drawn'),
        ({'MAX_LOGITS': 17}, 'semantic', '18 logits of a row of pixels are too many, at most 17 are kept'),
        ({'MAX_PEAKS': 1}, 'pose', '2 peaks are too many, at most 1 are grouped; raise detection_threshold'),
    ],
)
def test_no_result_is_larger_than_the_limit(limit, task, message, monkeypatch):
    boxes = {'boxes': np.zeros((1, 2, 4), 'f4'), 'scores': np.ones((1, 2), 'f4'), 'labels': np.zeros((1, 2), int)}
    grouping = dict(max_num_people=30, nms_kernel=5, detection_threshold=0.1, tag_threshold=1.0)
    grouping |= dict(ignore_too_much=False, adjust=False, refine=False)
    tags = np.zeros((1, 1, 2, 8, 1), 'f4')
    details, outputs = {
        'instance': ({'mask_threshold': 0.5}, {**boxes, 'masks': np.ones((1, 2, 7, 7), 'f4')}),
        'semantic': ({'align_corners': False, 'threshold': None}, {'logits': np.zeros((1, 2, 8, 9), 'f4')}),
        'pose': ({'grouping': grouping}, {'heatmaps': np.eye(8, dtype='f4')[None, :2, :, None], 'tags': tags}),
    }[task]
    described_task = {**TASK, 'kind': task, 'outputs': list(outputs), **details}
    session = Session.of(described(tasks=[described_task]), lambda _: outputs, 'net')
    next(session.predict(random_image(8, 9)))
    for name, value in limit.items():
        monkeypatch.setattr(limits, name, value)
    with pytest.raises(RuntimeInputError, match=f'net: on array: {message}'):
        next(session.predict(random_image(8, 9)))


def test_boxes_that_are_far_away_are_nowhere():
    assert not paste(np.ones((4, 4), 'f4'), np.array([1e38, 1e38, 3e38, 3e38], 'f4'), (9, 9), 0.5).any()
    with np.errstate(over='ignore'):
        assert not paste(np.ones((4, 4), 'f4'), np.array([-3e38, 0, -1e38, 9], 'f4'), (9, 9), 0.5).any()


@pytest.mark.parametrize(
    ('step', 'size', 'message'),
    [
        (
            {'op': 'resize', 'scale': [200, 90], 'keep_ratio': True},
            (1, 4000),
            'array: 4000x1 pixels would become 200x0',
        ),
        ({'op': 'resize_edge', 'scale': 51, 'edge': 'long'}, (4000, 8), 'array: 8x4000 pixels would become 0x51'),
        (
            {'op': 'pyramid', 'input_size': [512, 512], 'scales': [1], 'size_divisor': 64, 'stride': 32},
            (4, 4000),
            'array: 4000x4 pixels would become ',
        ),
    ],
)
def test_a_image_that_is_too_thin(step, size, message):
    with pytest.raises(RuntimeInputError, match=message):
        next(Session.of(described(steps=[step]), dict, 'net').predict(random_image(*size)))


def classified(**changes):
    """A session whose network gives the mean of blue and of green."""

    def run(given):
        return {'scores': given['image'][:, :2].mean((2, 3)).astype('f4')}

    return Session.of(described(**changes), run, 'net')


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
        failed = {path: str(each) for path, each in tried if isinstance(each, RuntimeInputError)}
        assert [Path(path).name for path, _ in tried] == [
            *(f'{name}.png' for name in 'abcdeg'),
            'absent.jpg',
            'array',
            'array',
        ]
        assert [Path(path).stem for path in failed] == ['b', 'c', 'd', 'absent', 'array']
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
    found = [each for _, each in session.try_predict(images, batch_size=3)]
    assert [isinstance(each, RuntimeInputError) for each in found] == [False, True, False]
    assert 'does not run on array (image [1, 3, 4, 4]): too bright' in str(found[1])


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

    def guarded(known, *given):
        for each in given:
            if isinstance(each, str):
                each.encode()
        return known(*given)

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
    assert [image['file_name'] for image in about['images']] == [path.name for path in paths]
    assert all(cv2.imdecode(np.fromfile(tmp_path / 'out' / 'vis' / name, np.uint8), 1).shape[2] == 3 for name in shown)


def test_no_drawn_image_replaces_another(tmp_path, predicted):
    for name in ('A/3_a.png', 'B/a.png', 'C/a.png'):
        (tmp_path / name).parent.mkdir()
        cv2.imwrite(str(tmp_path / name), random_image(20, 30))
    assert predicted(*(tmp_path / folder for folder in 'ABC'))[1] == ['3_a.png', '4_a.png', 'a.png']


def test_a_image_that_cannot_be_drawn_costs_no_other(tmp_path, predicted, monkeypatch):
    from icconv_mm_runtime import __main__ as command

    for name in 'abc':
        cv2.imwrite(str(tmp_path / f'{name}.png'), random_image(20, 31 if name == 'b' else 30))
    known = command.draw

    def draw(image, content):
        return known(image, content) if image.shape[1] == 30 else cv2.resize(image, (0, 0))

    monkeypatch.setattr(command, 'draw', draw)
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
    assert not lines and [each['id'] for each in about['categories']] == [1]
    assert [each['category_id'] for each in records] == [1]


def test_no_path_of_a_video_that_is_not_utf_8_reaches_opencv(tmp_path, monkeypatch):
    refuse_names(monkeypatch, 'VideoCapture')
    path = tmp_path / os.fsdecode(b'caf\xe9.mp4')
    path.write_bytes(b'no video')
    said = 'OpenCV opens no video whose path is not UTF-8: rename it'
    with pytest.raises(RuntimeInputError, match=rf'caf\\udce9\.mp4: {said}'):
        next(classified().predict([path]))
    found = [each for _, each in classified().try_predict([path, random_image(8, 9)])]
    assert said in str(found[0]) and not isinstance(found[1], RuntimeInputError)


def test_files_of_results_appear_whole_or_not_at_all(tmp_path, monkeypatch):
    from icconv_mm_runtime.coco import write_file

    path = tmp_path / 'predictions.json'
    write_file(path, b'old')
    with monkeypatch.context() as patch, pytest.raises(OSError, match='full'):
        patch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError('full')))
        write_file(path, b'new')
    assert [each.name for each in tmp_path.iterdir()] == ['predictions.json'] and path.read_bytes() == b'old'
    write_file(path, b'new')
    assert path.read_bytes() == b'new'


@pytest.mark.parametrize(
    ('images', 'batch_size', 'message'),
    [
        (None, 1, 'images: expected files, folders, videos or arrays, got None'),
        ([3], 1, 'images: expected files, folders, videos or arrays, got 3'),
        ([[random_image(4, 4)]], 1, 'images: expected files, folders, videos or arrays, got '),
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


def test_images_of_a_second_run_replace_those_of_the_first(tmp_path):
    import argparse

    from icconv_mm_runtime import __main__ as command

    for folder in 'ab':
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / 'x.png'), random_image(20, 30, ord(folder)))
    session = Session.of(described(), lambda inputs: {'scores': np.ones((len(inputs['image']), 2), np.float32)}, 'net')
    arguments = argparse.Namespace(file='', threads=None, batch_size=1, score_thr=0.3, json_score_thr=0.0, draw=True)
    arguments.images, arguments.out_dir = [tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, 'Session', lambda *_: session)
        for _ in range(2):
            command.predict_files(arguments)
    assert sorted(file.name for file in (tmp_path / 'out' / 'vis').iterdir()) == ['2_x.png', 'x.png']


def onnx_file(path, metadata):
    onnx = pytest.importorskip('onnx')
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in 'xy']
    graph = onnx.helper.make_graph([onnx.helper.make_node('Relu', ['x'], ['y'])], 'graph', value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=9)
    if metadata is not None:
        onnx.helper.set_model_props(model, {'icconv_mm': json.dumps(metadata)})
    onnx.save(model, str(path))


def test_metadata_that_are_too_long_are_not_parsed(monkeypatch):
    from icconv_mm_runtime.metadata import parsed

    text = json.dumps(described())
    assert parsed(text, 'net') == described()
    monkeypatch.setattr(limits, 'MAX_METADATA_BYTES', len(text) - 1)
    with pytest.raises(RuntimeInputError, match=f'net: has {len(text)} bytes of metadata, at most {len(text) - 1}'):
        parsed(text, 'net')
    monkeypatch.undo()
    with pytest.raises(RuntimeInputError, match='net: its metadata are no JSON'):
        parsed(text[:-1], 'net')


def test_a_bad_file(tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    onnx_file(tmp_path / 'other.onnx', None)
    onnx_file(tmp_path / 'newer.onnx', described(schema=99))
    (tmp_path / 'broken.onnx').write_bytes(b'no model')
    onnx_file(tmp_path / 'list.onnx', [3])
    (tmp_path / 'folder.onnx').mkdir()
    expected = {
        'list.onnx': 'its metadata must be fields and values, got ',
        'folder.onnx': 'no such file',
        'other.onnx': 'has no metadata of icconv_mm; write it with tools/export.py',
        'newer.onnx': 'its metadata have schema 99, this icconv_mm_runtime reads up to 1',
        'broken.onnx': 'cannot be read',
        'absent.onnx': 'no such file',
        'network.pth': 'no such file',
    }
    for name, message in expected.items():
        with pytest.raises(RuntimeInputError, match=message):
            Session(tmp_path / name)
    from icconv_mm_runtime.__main__ import main

    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / 'other.onnx'), str(tmp_path), '--out-dir', str(tmp_path / 'out')])
    assert str(end.value).startswith('error: ') and '\n' not in str(end.value)


def test_a_file_in_the_format_of_onnx_runtime(tmp_path):
    """What its converter makes of an exported file, with the metadata."""
    pytest.importorskip('onnxruntime')
    onnx_file(tmp_path / 'net.onnx', described())
    converter = [sys.executable, '-m', 'onnxruntime.tools.convert_onnx_models_to_ort', str(tmp_path / 'net.onnx')]
    subprocess.run([*converter, '--optimization_style', 'Fixed'], check=True, capture_output=True)
    session = Session(tmp_path / 'net.ort')
    assert session.metadata == described()
    np.testing.assert_array_equal(session.run({'x': np.array([-1], np.float32)})['y'], [0])


def test_weights_of_another_export_are_not_opened(tmp_path):
    """The ``.xml`` says of which ``.bin`` it is."""
    openvino = pytest.importorskip('openvino')
    writers = pytest.importorskip('icconv_mm.export.writers')
    onnx_file(tmp_path / 'net.onnx', None)
    for name in 'ab':
        model = openvino.convert_model(str(tmp_path / 'net.onnx'))
        if name == 'b':  # other weights
            weight = openvino.opset13.constant(np.ones(1, np.float32))
            added = openvino.opset13.add(model.outputs[0].get_node().input_value(0), weight)
            model = openvino.Model([added], model.get_parameters())
        writers.write_openvino(model, described(), tmp_path / f'{name}.xml')
        Session(tmp_path / f'{name}.xml')
    (tmp_path / 'b.bin').write_bytes((tmp_path / 'b.bin').read_bytes()[::-1])
    with pytest.raises(RuntimeInputError, match=r'b.bin: is of another export than the .xml beside it'):
        Session(tmp_path / 'b.xml')


def test_a_runtime_that_is_missing(tmp_path, monkeypatch):
    onnx_file(tmp_path / 'net.onnx', described())
    for name in ('onnxruntime', 'openvino'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeInputError, match='needs onnxruntime or openvino: pip install onnxruntime'):
        Session(tmp_path / 'net.onnx')
