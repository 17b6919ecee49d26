"""What runs exported files: without torch, and with the numbers of the libraries."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from described import RULE, TASK, described, random_image

from icconv_mm_runtime import RuntimeInputError, Session, limits
from icconv_mm_runtime.coco import coco_records, encode_rle
from icconv_mm_runtime.grouping import assignment
from icconv_mm_runtime.images import Sample, preprocess
from icconv_mm_runtime.outputs import decode, paste


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
    expected = transforms.MultiScaleResize((128, 160), scales, size_divisor=32).transform({'img': image})
    step = {'op': 'pyramid', 'input_size': [128, 160], 'scales': scales, 'size_divisor': 32, 'stride': 32}
    preprocessed = preprocess(Sample('', image), [step])
    for level, other in zip(preprocessed.levels, expected['img'], strict=True):
        np.testing.assert_array_equal(level, other)
    base, center, extent = preprocessed.region
    assert base == expected['input_size']
    np.testing.assert_array_equal(center, expected['input_center'])
    np.testing.assert_array_equal(extent, expected['input_scale'])


@pytest.mark.parametrize('size', [(427, 640), (640, 427), (31, 31)])
def test_steps_are_those_of_mmcv_and_its_kin(size):
    mmcv = pytest.importorskip('mmcv.transforms')
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
        expected = transform({'img': image})
        preprocessed = preprocess(Sample('', image), [step])
        np.testing.assert_array_equal(preprocessed.levels[0], expected['img'])
        if 'scale_factor' in expected:
            assert preprocessed.scale == pytest.approx(expected['scale_factor'], rel=1e-12)


@pytest.mark.skipif(not cv2.__version__.startswith('4.'), reason=f'this OpenCV is {cv2.__version__}: warping.py')
@pytest.mark.parametrize('size', [(427, 640), (640, 427)])
def test_fitting_is_that_of_mmpose(size):
    transforms = pytest.importorskip('mmpose.datasets.transforms')
    image = random_image(*size)
    expected = transforms.BottomupResize((96, 64), pad_val=(114, 114, 114))({'img': image, 'ori_shape': size})
    preprocessed = preprocess(Sample('', image), [{'op': 'fit', 'input_size': [96, 64], 'value': [114, 114, 114]}])
    np.testing.assert_array_equal(preprocessed.levels[0], expected['img'])
    np.testing.assert_array_equal(preprocessed.region[2], expected['input_scale'])


# --- results


def test_masks_are_pasted_as_mmdet_pastes_them():
    fcn = pytest.importorskip('mmdet.models.roi_heads.mask_heads.fcn_mask_head')
    masks = torch.rand(20, 1, 28, 28)
    corners = torch.rand(20, 2) * 60 - 5
    boxes = torch.cat([corners, corners.clamp(min=0) + torch.rand(20, 2) * 80 + 0.1], 1)
    for mask, box in zip(masks, boxes):
        part, place = fcn._do_paste_mask(mask[None], box[None], 64, 80, skip_empty=True)
        expected = np.zeros((64, 80), bool)
        expected[place] = (part >= 0.5)[0].numpy()
        assert (paste(mask[0].numpy(), box.numpy(), (64, 80), 0.5) != expected).sum() <= 1


@pytest.mark.parametrize('align_corners', [False, True])
def test_logits_are_enlarged_as_torch_enlarges_them(align_corners):
    logits = torch.randn(1, 5, 24, 32)
    cut = torch.nn.functional.interpolate(logits[..., :21, :], (100, 130), mode='bilinear', align_corners=align_corners)
    task = {'kind': 'semantic', 'align_corners': align_corners, 'threshold': None}
    result = decode(task, {'logits': logits.numpy()}, 0, Sample('', random_image(100, 130), valid_shape=(21, 32)))
    assert (result['seg_map'] != cut.argmax(1)[0].numpy()).mean() <= 1e-4


@pytest.mark.parametrize('shape', [(1, 1), (7, 5), (64, 48)])
@pytest.mark.parametrize('share', [0.0, 0.03, 0.5, 1.0])
def test_rle_are_those_of_coco(shape, share, monkeypatch):
    coco = pytest.importorskip('pycocotools.mask')
    mask = np.random.default_rng(1).random(shape) < share
    expected = coco.encode(np.asfortranarray(mask, np.uint8))
    large = coco.encode(np.asfortranarray(mask.repeat(3, 0).repeat(2, 1), np.uint8))
    for _ in range(2):
        assert encode_rle(mask) == {'size': list(shape), 'counts': expected['counts'].decode()}
        assert encode_rle(mask, (3 * shape[0], 2 * shape[1]))['counts'] == large['counts'].decode()
        monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)  # as where the runtime is alone


def test_the_assignment_is_that_of_scipy_also_where_costs_are_equal():
    linear_sum_assignment = pytest.importorskip('scipy.optimize').linear_sum_assignment
    random = np.random.default_rng(0)
    for _ in range(300):
        shape = random.integers(1, 9, 2)
        cost = np.round(random.random(shape) * 2) * 100 - random.random(shape[0])[:, None]
        for indices, other in zip(assignment(cost), linear_sum_assignment(cost)):
            np.testing.assert_array_equal(indices, other)


def test_records_of_classes():
    records = coco_records(TASK, {'scores': np.array([0.25, 0.75])}, image_id=7)
    assert records == [
        {'image_id': 7, 'category_id': 2, 'score': 0.75},
        {'image_id': 7, 'category_id': 1, 'score': 0.25},
    ]


def test_records_of_boxes_and_seg_maps():
    result = {'boxes': np.array([[1.0, 2.5, 4.00049, 8.0]] * 2), 'scores': np.array([0.123456, 0.1])}
    result['labels'] = np.array([1, 0])
    (record,) = coco_records({'kind': 'detection'}, result, 7, 0.12, category_ids=[30, 20])
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
    [
        (b'', 'is no image, or is damaged'),
        (b'GIF89a?', 'is damaged, or a GIF that OpenCV'),
        (None, 'no such file'),
    ],
)
def test_a_bad_image(content, message, tmp_path):
    path = tmp_path / 'a.jpg'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeInputError, match=message):
        next(Session.of(described(), dict, 'net').predict(path))


def test_a_file_of_a_fixed_batch_gets_single_images():
    counts = []

    def run(arrays):
        counts.append(len(arrays['image']))
        return {'scores': np.full((counts[-1], 2), 0.5, np.float32)}

    images = [random_image(8, 8)] * 3
    list(Session.of(described(batch={**RULE, 'count': 1}), run, 'net').predict(images, batch_size=2))
    assert counts == [1, 1, 1]
    list(Session.of(described(), run, 'net').predict(images, batch_size=2))
    assert counts[3:] == [2, 1]


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
    ({'batch': {**RULE, 'count': 2}}, 'batch.count must be a whole number from 1 to 1, got 2'),
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
    ({'tasks': [{**TASK, 'thresholds': [0.5, 2]}]}, 'tasks.0.thresholds.1 must be a number from 0 to 1'),
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
    arrays = {'boxes': np.zeros((1, 2, 4), 'f4'), 'scores': np.ones((1, 2), 'f4'), 'labels': np.zeros((1, 2), int)}
    session = Session.of(described(tasks=[task]), lambda _: arrays, 'net')
    assert len(next(session.predict(random_image(8, 9))).tasks['']['boxes']) == 2
    arrays = {**arrays, **outputs} if outputs else {}
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
