"""A small exported file with a task of every kind, whose outputs follow from the means of the channels."""

import json
from pathlib import Path

import numpy as np
from described import RULE, described

TASKS = {
    'boxes': {'kind': 'detection', 'outputs': ['boxes', 'scores', 'labels']},
    'masks': {'kind': 'instance', 'outputs': ['boxes', 'scores', 'labels', 'masks'], 'mask_threshold': 0.5},
    'map': {'kind': 'semantic', 'outputs': ['logits'], 'align_corners': False, 'threshold': None},
    'pose': {
        'kind': 'pose',
        'outputs': ['keypoints', 'keypoint_scores', 'scores'],
        'grouping': None,
        'keypoints': ['nose', 'tail'],
        'skeleton': [[0, 1]],
    },
    'class': {'kind': 'classification', 'outputs': ['scores']},
}
STEPS = [{'op': 'fit', 'input_size': [64, 48], 'value': [114.0, 114.0, 114.0]}]


def write_network(path: Path, *names: str, steps: list | None = None) -> Path:
    """Writes an ONNX file with these tasks, by default with all, and returns its path."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    tasks = [
        {'name': name, 'classes': ['ball', 'box', 'cup'], **TASKS[name]} for name in TASKS if name in (names or TASKS)
    ]
    if len(tasks) == 1:
        tasks[0]['name'] = ''
    grid = np.arange(12, dtype=np.float32)
    constants = {
        'full': np.float32(255),
        'axes_2': np.int64([2]),
        'axes_3': np.int64([2, 3]),
        'corners': np.float32([[[1, 2, 30, 40], [8, 4, 20, 30], [9, 5, 40, 44]]]),
        'cells': np.linspace(0, 2, 49, dtype=np.float32).reshape(1, 1, 7, 7),
        'points': (grid * 4).reshape(1, 3, 2, 2),
        'numbers': np.int64([[0, 1, 2]]),
        'zero': np.float32(0),
    }
    nodes = [
        helper.make_node('Cast', ['image'], ['pixels'], to=TensorProto.FLOAT),
        helper.make_node('ReduceMean', ['pixels', 'axes_3'], ['means'], keepdims=0),
        helper.make_node('Div', ['means', 'full'], ['scores']),
        helper.make_node('Unsqueeze', ['scores', 'axes_2'], ['scores_1']),
        helper.make_node('Unsqueeze', ['scores', 'axes_3'], ['scores_2']),
        helper.make_node('Mul', ['scores_1', 'corners'], ['boxes']),
        helper.make_node('Mul', ['scores', 'zero'], ['zeros']),
        helper.make_node('Cast', ['zeros'], ['whole_zeros'], to=TensorProto.INT64),
        helper.make_node('Add', ['whole_zeros', 'numbers'], ['labels']),
        helper.make_node('Mul', ['scores_2', 'cells'], ['masks']),
        helper.make_node('Mul', ['scores_2', 'points'], ['keypoints']),
        helper.make_node('Concat', ['scores_1', 'scores_1'], ['keypoint_scores'], axis=2),
    ]
    outputs = []
    for task in tasks:
        for name in task['outputs']:
            source, key = 'pixels' if name == 'logits' else name, f'{task["name"]}.{name}'.lstrip('.')
            if key != source:
                nodes.append(helper.make_node('Identity', [source], [key]))
            kind = TensorProto.INT64 if name == 'labels' else TensorProto.FLOAT
            outputs.append(helper.make_tensor_value_info(key, kind, None))
    image = helper.make_tensor_value_info('image', TensorProto.UINT8, ['n', 3, 'h', 'w'])
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'small', [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    text = json.dumps(described(tasks=tasks, steps=STEPS if steps is None else steps, batch=RULE))
    helper.set_model_props(model, {'icconv_mm': text})
    onnx.save(model, str(path))
    return path
