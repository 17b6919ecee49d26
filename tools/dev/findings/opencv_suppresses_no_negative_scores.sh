#!/usr/bin/env bash
# opencv-python-headless 5.0.0.93, onnx 1.22.0, onnxruntime 1.32.0.
# Good guess: a NonMaxSuppression that ONNX's checker and ONNX Runtime accept runs in cv2.dnn, whose operator list has it.
# What happens: a score_threshold below 0, which the standard allows, ends in an assertion of NMSBoxes when the network
# runs, in the new engine and in the classic one. Reading the file succeeds. Detectors mark empty entries with the score
# -1 and keep those above -0.5, or suppress logits. The same boxes with scores above 0 give the same indices everywhere.
# Who is hurt: whoever deploys such a detector with OpenCV: it loads, and fails on the first image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'opencv-python-headless==5.0.0.93' 'onnx==1.22.0' 'onnxruntime==1.32.0' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import sys
from importlib.metadata import version

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print(', '.join(f'{name} {version(name)}' for name in ('opencv-python-headless', 'onnx', 'onnxruntime', 'numpy')))
BOXES = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [40, 40, 50, 50]]], np.float32)
SCORES = np.array([[[0.9, 0.8, 0.0, -1.0]]], np.float32)


def suppression(threshold):
    constants = {'most': np.array([10], np.int64), 'iou': np.float32([0.5]), 'threshold': np.float32([threshold])}
    node = helper.make_node('NonMaxSuppression', ['boxes', 'scores', *constants], ['chosen'])
    inputs = [
        helper.make_tensor_value_info('boxes', TensorProto.FLOAT, BOXES.shape),
        helper.make_tensor_value_info('scores', TensorProto.FLOAT, SCORES.shape),
    ]
    output = helper.make_tensor_value_info('chosen', TensorProto.INT64, [None, 3])
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([node], 'suppression', inputs, [output], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def by_opencv(content, scores, engine):
    net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8), getattr(cv2.dnn, engine))
    net.setInput(BOXES, 'boxes')
    net.setInput(scores, 'scores')
    try:
        return net.forward('chosen').tolist()
    except cv2.error as error:
        return error.err


def outcomes(threshold, scores):
    content = suppression(threshold)
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    found = {'ONNX Runtime': session.run(None, {'boxes': BOXES, 'scores': scores})[0].tolist()}
    found |= {engine: by_opencv(content, scores, engine) for engine in ('ENGINE_NEW', 'ENGINE_CLASSIC')}
    print(f'score_threshold {threshold}, scores {scores.ravel().tolist()}')
    for name, outcome in found.items():
        print(f'  {name}: {outcome}')
    return list(found.values())


right, refusal = [[0, 0, 0], [0, 0, 2]], 'score_threshold >= 0'
found = [outcomes(-0.5, SCORES), outcomes(0.5, SCORES + 1)]
sys.exit(found != [[right, refusal, refusal], [right, right, right]])
P
"$python" -W ignore "$folder/try.py" 2>/dev/null
