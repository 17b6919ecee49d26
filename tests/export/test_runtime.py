"""What runs exported files: without torch, and with the numbers of the libraries."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch

from icconv_mm_runtime import RuntimeInputError, Session
from icconv_mm_runtime.grouping import assignment, group_keypoints
from icconv_mm_runtime.pictures import Picture, prepare
from icconv_mm_runtime.results import coco_records, decode, paste, run_lengths

TASK = {'name': '', 'kind': 'classification', 'outputs': ['scores'], 'classes': ['ball', 'box'], 'palette': None}
RULE = {'divisor': 1, 'pads': False, 'sized': False, 'fixed': None}


def described(**changes):
    return {'schema': 1, 'steps': [], 'batch': RULE, 'tasks': [TASK], **changes}


def picture(height, width, seed=0):
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


# --- pictures


@pytest.mark.parametrize('size', [(427, 640), (640, 427), (33, 500)])
@pytest.mark.parametrize('scales', [[1], [2, 1, 0.5]])
def test_a_pyramid_is_that_of_the_transform(size, scales):
    transforms = pytest.importorskip('icconv_mm.tasks.pose.transforms')
    image = picture(*size)
    known = transforms.MultiScaleResize((128, 160), scales, size_divisor=32).transform({'img': image})
    step = {'op': 'pyramid', 'input_size': [128, 160], 'scales': scales, 'size_divisor': 32, 'stride': 32}
    made = prepare(Picture('', image), [step])
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

    image = picture(*size)
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
        made = prepare(Picture('', image), [step])
        np.testing.assert_array_equal(made.levels[0], known['img'])
        if 'scale_factor' in known:
            assert made.scale == pytest.approx(known['scale_factor'], rel=1e-12)


@pytest.mark.parametrize('size', [(427, 640), (640, 427)])
def test_fitting_is_that_of_mmpose(size):
    transforms = pytest.importorskip('mmpose.datasets.transforms')
    image = picture(*size)
    known = transforms.BottomupResize((96, 64), pad_val=(114, 114, 114))({'img': image, 'ori_shape': size})
    made = prepare(Picture('', image), [{'op': 'fit', 'input_size': [96, 64], 'value': [114, 114, 114]}])
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
    found = decode(task, {'logits': logits.numpy()}, 0, Picture('', picture(100, 130), valid=(21, 32)))
    assert (found['label_map'] != cut.argmax(1)[0].numpy()).mean() <= 1e-4


@pytest.mark.parametrize('shape', [(1, 1), (7, 5), (64, 48)])
@pytest.mark.parametrize('share', [0.0, 0.03, 0.5, 1.0])
def test_run_lengths_are_those_of_coco(shape, share, monkeypatch):
    coco = pytest.importorskip('pycocotools.mask')
    mask = np.random.default_rng(1).random(shape) < share
    known = coco.encode(np.asfortranarray(mask, np.uint8))
    large = coco.encode(np.asfortranarray(mask.repeat(3, 0).repeat(2, 1), np.uint8))
    for _ in range(2):
        assert run_lengths(mask) == {'size': list(shape), 'counts': known['counts'].decode()}
        assert run_lengths(mask, (3 * shape[0], 2 * shape[1]))['counts'] == large['counts'].decode()
        monkeypatch.setitem(sys.modules, 'pycocotools.mask', None)  # as where the runtime is alone


def test_the_assignment_is_that_of_scipy_also_where_costs_are_equal():
    known = pytest.importorskip('scipy.optimize').linear_sum_assignment
    random = np.random.default_rng(0)
    for _ in range(300):
        shape = random.integers(1, 9, 2)
        cost = np.round(random.random(shape) * 2) * 100 - random.random(shape[0])[:, None]
        for own, other in zip(assignment(cost), known(cost)):
            np.testing.assert_array_equal(own, other)


@pytest.mark.parametrize('tag_maps', [1, 2])
def test_people_are_those_of_the_package(tag_maps):
    grouping = pytest.importorskip('icconv_mm.tasks.pose.grouping')
    random = np.random.default_rng(tag_maps)
    heatmaps = random.random((17, 45, 70)).astype(np.float32) * 0.2
    tags = random.normal(0, 0.3, (tag_maps, 17, 45, 70)).astype(np.float32)
    for person in range(6):
        for keypoint in random.choice(17, 11, replace=False):
            y, x = random.integers(3, 42), random.integers(3, 67)
            heatmaps[keypoint, y, x] = 0.4 + 0.6 * random.random()
            tags[:, keypoint, y - 1 : y + 2, x - 1 : x + 2] = 3 * person
    options = dict(max_num_people=30, nms_kernel=5, detection_threshold=0.3, tag_threshold=1.0)
    options |= dict(ignore_too_much=False, adjust=True, refine=True, keypoint_order=None)
    own, own_scores = group_keypoints(heatmaps, tags, **options)
    known, scores = grouping.group_keypoints(
        torch.from_numpy(heatmaps), torch.from_numpy(tags).permute(1, 2, 3, 0), **options
    )
    np.testing.assert_allclose(own, known.numpy(), atol=1e-6)
    np.testing.assert_allclose(own_scores, scores.numpy(), atol=1e-6)
    assert len(own) >= 6 and (own[..., 2] > 0).sum() > 66  # missing keypoints were filled in


def test_records_of_classes():
    records = coco_records(TASK, {'scores': np.array([0.25, 0.75])}, image_id=7)
    assert records == [
        {'image_id': 7, 'category_id': 2, 'score': 0.75},
        {'image_id': 7, 'category_id': 1, 'score': 0.25},
    ]


def test_records_of_boxes_and_label_maps():
    found = {'boxes': np.array([[1.0, 2.5, 4.00049, 8.0]] * 2), 'scores': np.array([0.123456, 0.1])}
    found['labels'] = np.array([1, 0])
    (record,) = coco_records({'kind': 'boxes'}, found, 7, 0.12, category_ids=[30, 20])
    assert record == {'image_id': 7, 'category_id': 20, 'bbox': [1.0, 2.5, 3.0, 5.5], 'score': 0.12346}
    maps = {'label_map': np.array([[0, 2], [255, 2]])}
    records = coco_records({'kind': 'semantic'}, maps, 7, category_ids=[30, 20, 10])  # 255 is of no class
    assert [record['category_id'] for record in records] == [30, 10]
    assert records[1]['segmentation'] == run_lengths(maps['label_map'] == 2)


# --- what is refused


def test_a_picture_of_every_kind(tmp_path):
    cv2.imwrite(str(tmp_path / 'b.png'), picture(20, 30))
    cv2.imwrite(str(tmp_path / 'a.jpg'), picture(20, 30))
    session = Session.of(described(), lambda inputs: {'scores': np.ones((len(inputs['image']), 2), np.float32)}, 'net')
    shapes = [prediction.image.shape for prediction in session.predict([tmp_path, picture(8, 9)], batch_size=2)]
    assert shapes == [(20, 30, 3), (20, 30, 3), (8, 9, 3)]


@pytest.mark.parametrize(
    ('content', 'message'),
    [(b'', 'is no picture, or is damaged'), (b'GIF89a?', 'is no picture'), (None, 'no such file')],
)
def test_a_bad_picture(content, message, tmp_path):
    path = tmp_path / 'a.jpg'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RuntimeInputError, match=message):
        next(Session.of(described(), dict, 'net').predict(path))


def test_a_bad_network():
    broken = Session.of(described(), lambda inputs: {'scores': np.full((1, 2), np.nan, np.float32)}, 'net')
    with pytest.raises(RuntimeInputError, match='the output scores for array is not finite'):
        next(broken.predict(picture(8, 8)))
    fixed = described(batch={**RULE, 'fixed': [6, 6]})
    with pytest.raises(RuntimeInputError, match='needs an input of 8x9, the file allows 6x6'):
        next(Session.of(fixed, dict, 'net').predict(picture(8, 9)))
    larger = described(batch={**RULE, 'fixed': [8, 16]})  # which would show a border that no input tells of
    with pytest.raises(RuntimeInputError, match='needs an input of 8x9, the file allows 8x16'):
        next(Session.of(larger, dict, 'net').predict(picture(8, 9)))
    with pytest.raises(RuntimeInputError, match='batch_size must be 1 or more, got 0'):
        next(broken.predict(picture(8, 8), batch_size=0))


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
def test_a_picture_that_is_too_thin(step, size, message):
    with pytest.raises(RuntimeInputError, match=message):
        next(Session.of(described(steps=[step]), dict, 'net').predict(picture(*size)))


def test_keypoints_of_maps_that_are_smaller_than_the_input():
    """A bottom-up network without restored size, of a picture that was resized and filled up."""
    grouping = dict(max_num_people=30, nms_kernel=5, detection_threshold=0.1, tag_threshold=1.0)
    grouping |= dict(ignore_too_much=False, adjust=False, refine=False, keypoint_order=None)
    task = {'name': '', 'kind': 'pose', 'outputs': ['heatmaps', 'tags'], 'grouping': grouping}
    heatmaps = np.zeros((1, 1, 16, 24), np.float32)
    heatmaps[0, 0, 8, 12] = 1

    def run(arrays):
        assert arrays['image'].shape == (1, 3, 64, 96)
        return {'heatmaps': heatmaps, 'tags': np.zeros((1, 1, 1, 16, 24), np.float32)}

    rule = {**RULE, 'divisor': 32, 'pads': True}
    steps = [{'op': 'resize', 'scale': [80, 60], 'keep_ratio': False}]
    session = Session.of(described(steps=steps, batch=rule, tasks=[task]), run, 'net')
    (keypoint,) = next(session.predict(picture(120, 160))).tasks['']['keypoints'][0]
    np.testing.assert_allclose(keypoint, [96.5, 64.5])  # 12 and 8 of cells of 4 pixels, each of 2 of the picture


def test_pictures_of_a_second_run_replace_those_of_the_first(tmp_path):
    import argparse

    from icconv_mm_runtime import __main__ as command

    for folder in 'ab':
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / 'x.png'), picture(20, 30, ord(folder)))
    session = Session.of(described(), lambda inputs: {'scores': np.ones((len(inputs['image']), 2), np.float32)}, 'net')
    arguments = argparse.Namespace(file='', threads=None, batch_size=1, score_thr=0.3, json_score_thr=0.0, draw=True)
    arguments.pictures, arguments.out_dir = [tmp_path / 'a', tmp_path / 'b'], tmp_path / 'out'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, 'Session', lambda *_: session)
        for _ in range(2):
            command.run(arguments)
    assert sorted(file.name for file in (tmp_path / 'out' / 'vis').iterdir()) == ['2_x.png', 'x.png']


def onnx_file(path, metadata):
    onnx = pytest.importorskip('onnx')
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in 'xy']
    graph = onnx.helper.make_graph([onnx.helper.make_node('Relu', ['x'], ['y'])], 'graph', value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid('', 18)], ir_version=9)
    if metadata is not None:
        onnx.helper.set_model_props(model, {'icconv_mm': json.dumps(metadata)})
    onnx.save(model, str(path))


def test_a_bad_file(tmp_path, capsys):
    pytest.importorskip('onnxruntime')
    onnx_file(tmp_path / 'other.onnx', None)
    onnx_file(tmp_path / 'newer.onnx', described(schema=99))
    (tmp_path / 'broken.onnx').write_bytes(b'no model')
    expected = {
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


def test_a_runtime_that_is_missing(tmp_path, monkeypatch):
    onnx_file(tmp_path / 'net.onnx', described())
    for name in ('onnxruntime', 'openvino'):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RuntimeInputError, match='needs onnxruntime or openvino: pip install onnxruntime'):
        Session(tmp_path / 'net.onnx')
