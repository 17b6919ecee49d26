"""Exported files with metadata and outputs of another hand: a finite result, or one message, in bounded memory."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from icconv_mm_runtime import RuntimeInputError, Session, limits
from icconv_mm_runtime.coco import coco_records

GROUPING = dict(max_num_people=3, nms_kernel=3, detection_threshold=0.5, tag_threshold=1.0, keypoint_order=[1, 0])
GROUPING |= dict(ignore_too_much=False, adjust=True, refine=True)
DETAILS = {
    'detection': {'outputs': ['boxes', 'scores', 'labels'], 'most': 5, 'least': 0.05},
    'instance': {'outputs': ['boxes', 'scores', 'labels', 'masks'], 'most': 5, 'mask_threshold': 0.5},
    'semantic': {'outputs': ['logits'], 'align_corners': False, 'threshold': None},
    'pose': {'outputs': ['heatmaps', 'tags'], 'grouping': GROUPING, 'skeleton': [[0, 1]]},
    'keypoints': {
        'kind': 'pose',
        'outputs': ['keypoints', 'keypoint_scores', 'scores'],
        'most': 5,
        'skeleton': [[0, 1]],
    },
    'classification': {'outputs': ['scores']},
}
ENDS = [
    {'op': 'pyramid', 'input_size': [16, 24], 'scales': [1], 'size_divisor': 8, 'stride': 8},
    {'op': 'fit', 'input_size': [16, 24], 'value': [114.0, 114.0, 114.0]},
]
STEPS = [
    [],
    [{'op': 'resize', 'scale': [24, 16], 'keep_ratio': True}, {'op': 'pad', 'size': [24, 24], 'value': [0, 0, 0]}],
    [{'op': 'resize_edge', 'scale': 20, 'edge': 'short'}, {'op': 'center_crop', 'size': [16, 16]}],
    [ENDS[0]],
    [ENDS[1]],
]
NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 33, 1000, 40_000, 2**31, 2**63, 10**30, 10**400, 1e-9, 1e300]),
    st.floats(),
    st.integers(-5, 70),
)
VALUES = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=4), st.lists(NUMBERS, max_size=4))
IMAGES = [np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8) for size in ((8, 9), (12, 7), (40, 3))]
MOST_BYTES = 40 << 20


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Harmless sizes are too large, so that no example asks for much."""
    for name, value in dict(
        MAX_LEVEL_PIXELS=1 << 16, MAX_INPUT_PIXELS=1 << 18, MAX_MASK_PIXELS=1 << 20, MAX_LOGITS=1 << 18
    ).items():
        monkeypatch.setattr(limits, name, value)


def described(kind, steps):
    task = {'name': '', 'kind': kind, 'classes': ['ball', 'box'], 'palette': [[1, 2, 3], [4, 5, 6]], **DETAILS[kind]}
    batch = {'divisor': 4, 'pads': kind in ('detection', 'instance'), 'sized': True, 'fixed': None}
    return copy.deepcopy({'schema': 1, 'steps': steps, 'batch': batch, 'tasks': [task], 'versions': {}})


def outputs_of(kind, arrays):
    """What a network of a kind gives for some inputs: 4 objects of 2 classes, or 3 keypoints."""
    count, _, height, width = arrays['image'].shape
    random = np.random.default_rng(1)

    def floats(*shape):
        return random.random((count, *shape)).astype(np.float32)

    boxes = {'boxes': floats(4, 4) * 8, 'scores': floats(4), 'labels': random.integers(0, 2, (count, 4))}
    return {
        'detection': boxes,
        'instance': {**boxes, 'masks': floats(4, 7, 7)},
        'semantic': {'logits': floats(2, height, width)},
        'pose': {'heatmaps': floats(3, height, width), 'tags': floats(1, 3, height, width)},
        'keypoints': {'keypoints': floats(4, 3, 2) * 9, 'keypoint_scores': floats(4, 3), 'scores': floats(4)},
        'classification': {'scores': floats(2)},
    }[kind]


def mutated(data, node):
    """Drop, exchange, scale or replace something in what JSON holds; in place."""
    while True:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        inner = [key for key in keys if isinstance(node[key], (dict, list))]
        if not keys:
            return
        key = data.draw(st.sampled_from([*keys, *inner * 4]))
        if not isinstance(node[key], (dict, list)) or data.draw(st.integers(0, 4)) == 0:
            break
        node = node[key]
    kind = data.draw(st.sampled_from(['drop', 'replace', 'scale', 'twice', 'other']))
    if kind == 'drop':
        del node[key]
    elif kind == 'scale' and isinstance(node[key], (int, float)):
        node[key] *= data.draw(st.sampled_from([-1, 0.001, 0.5, 10, 255, 10**6, 10**12]))
    elif kind == 'twice' and isinstance(node, list):
        node.append(node[key])
    elif kind == 'other' and isinstance(node, dict):
        node[data.draw(st.text(max_size=4))] = node[key]
    else:
        node[key] = data.draw(VALUES)


def assert_used_or_refused(make, batch_size, name='net'):
    """What a session finds is finite, can be drawn and written; all else is a RuntimeInputError in one line."""
    tracemalloc.start()
    try:
        session = make()
        for _, result in session.try_predict(IMAGES, batch_size):
            if isinstance(result, RuntimeInputError):
                raise result
            for key, task in session.tasks.items():
                assert all(np.isfinite(values).all() for values in result.tasks[key].values())
                json.dumps(coco_records(task, result.tasks[key], 1), allow_nan=False)
            assert result.plot(0.3).shape == result.image.shape
    except RuntimeInputError as error:
        assert str(error).startswith((name, 'array')) and str(error).isprintable() and len(str(error)) < 1000
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_BYTES


@given(data=st.data(), kind=st.sampled_from(list(DETAILS)), batch_size=st.integers(1, 3))
def test_metadata(case, data, kind, batch_size):
    metadata = described(kind, data.draw(st.sampled_from(STEPS if kind != 'keypoints' else [[end] for end in ENDS])))
    for _ in range(data.draw(st.integers(0, 3))):
        mutated(data, metadata)
    case.holds(json.dumps([kind, metadata]).encode())
    assert_used_or_refused(lambda: Session.of(metadata, lambda arrays: outputs_of(kind, arrays), 'net'), batch_size)


@given(data=st.data(), kind=st.sampled_from(list(DETAILS)), batch_size=st.integers(1, 3))
def test_outputs(case, data, kind, batch_size):
    """A network gives too little, too few dimensions, other numbers, or numbers that are far too large."""

    def wrong(values):
        change = data.draw(st.sampled_from(['other', 'number', 'shape', 'dtype', 'empty', 'large']))
        if change == 'number' and values.size:
            values = values.copy()
            values.flat[data.draw(st.integers(0, values.size - 1))] = data.draw(st.sampled_from([-1, 0, 127]))
        elif change == 'large' and values.dtype.kind == 'f':
            with np.errstate(all='ignore'):
                values = values * np.float32(data.draw(st.sampled_from([-1e38, 3e37, 1e20, np.nan])))
        elif change == 'shape':
            values = values[data.draw(st.sampled_from([0, np.s_[:, :1], np.s_[..., :1], np.s_[..., None]]))]
        elif change == 'dtype':
            with np.errstate(all='ignore'):
                values = values.astype(data.draw(st.sampled_from(['f2', 'f8', 'i1', 'u8', 'S4', 'O', '?'])))
        elif change == 'empty':
            values = np.zeros((len(values), *[0] * (values.ndim - 1)), values.dtype)
        else:
            values = data.draw(st.sampled_from([None, [1.0], 'x', values, np.float32(1)]))
        return values

    def run(arrays):
        outputs = outputs_of(kind, arrays)
        for _ in range(data.draw(st.integers(0, 2))):
            name = data.draw(st.sampled_from(sorted(outputs)))
            if isinstance(outputs[name], np.ndarray):
                outputs[name] = wrong(outputs[name])
        if data.draw(st.integers(0, 9)) == 0:
            return data.draw(st.sampled_from([None, {}, [], 3]))
        return outputs

    case.holds(kind.encode())
    metadata = described(kind, data.draw(st.sampled_from(STEPS if kind != 'keypoints' else [[end] for end in ENDS])))
    assert_used_or_refused(lambda: Session.of(metadata, run, 'net'), batch_size)


def onnx_file(text):
    """A segmentor of two classes, whose logits are two channels of the image, that says so of itself."""
    onnx = pytest.importorskip('onnx')
    pytest.importorskip('onnxruntime')
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node('Cast', ['image'], ['floats'], to=TensorProto.FLOAT),
        helper.make_node('Slice', ['floats', 'from', 'to', 'axis'], ['logits']),
    ]
    limits_of = [helper.make_tensor(name, TensorProto.INT64, [1], [at]) for name, at in zip(('from', 'to'), (0, 2))]
    values = [
        helper.make_tensor_value_info('image', TensorProto.UINT8, ['batch', 3, 'height', 'width']),
        helper.make_tensor_value_info('logits', TensorProto.FLOAT, ['batch', 2, 'height', 'width']),
    ]
    axis = helper.make_tensor('axis', TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, 'segmentor', values[:1], values[1:], [*limits_of, axis])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=9)
    onnx.helper.set_model_props(model, {'icconv_mm': text})
    return model.SerializeToString()


@given(data=st.data(), batch_size=st.integers(1, 3))
def test_metadata_of_a_file(case, data, batch_size):
    metadata = described('semantic', data.draw(st.sampled_from(STEPS)))
    metadata['batch']['sized'] = False
    for _ in range(data.draw(st.integers(0, 2))):
        mutated(data, metadata)
    text = json.dumps(metadata)
    for _ in range(data.draw(st.integers(0, 1))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(['', '}', '[' * 2000, '9' * 30, '"'])) + text[at + 1 :]
    path = case.holds(onnx_file(text)).rename(case.path.with_suffix('.onnx'))
    assert_used_or_refused(lambda: Session(path), batch_size, str(path))
