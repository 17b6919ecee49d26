#!/usr/bin/env bash
# MNN 3.6.1 (its converter and its runtime), onnx 1.22.0, onnxruntime 1.32.0.
# Good guess: a reduction of ONNX over the last axis gives a number for each row, from opset 18 on as before it.
# What happens: opset 18 moved the axes of reductions from an attribute to an input. The converter takes them for sums,
# means, products and extremes, but not for ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp and ReduceSumSquare: these
# reduce the whole tensor to one number, which is broadcast in what follows. Nothing is printed, and the file runs.
# Who is hurt: whoever converts a network with torch.nn.functional.normalize or a scaled norm: torch.onnx.export writes
# opset 18 or newer. A pose network with such a norm gave keypoints that were wrong by up to a tenth of the image.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'MNN==3.6.1' 'onnx==1.22.0' 'onnxruntime==1.32.0' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import sys
from importlib.metadata import version

import MNN
import numpy as np
import onnx
import onnxruntime
from _tools import mnnconvert
from onnx import TensorProto, helper, numpy_helper

print(', '.join(f'{name} {version(name)}' for name in ('MNN', 'onnx', 'onnxruntime', 'numpy')), file=sys.stderr)
X = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 4)).astype(np.float32)
NORMS = ['ReduceL1', 'ReduceL2', 'ReduceLogSum', 'ReduceLogSumExp', 'ReduceSumSquare']
OTHERS = ['ReduceMax', 'ReduceMean', 'ReduceMin', 'ReduceProd', 'ReduceSum']


def reduction(kind, opset):
    is_input = opset >= 18 or kind == 'ReduceSum'
    attributes = {} if is_input else {'axes': [-1]}
    node = helper.make_node(kind, ['x', 'axes'] if is_input else ['x'], ['y'], keepdims=1, **attributes)
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, X.shape)
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT, [2, 3, 1])
    axes = [numpy_helper.from_array(np.array([-1], np.int64), 'axes')] if is_input else []
    graph = helper.make_graph([node], 'reduction', [x], [y], axes)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def by_mnn(model, folder):
    onnx.save(model, f'{folder}/a.onnx')
    command = ['mnnconvert', '-f', 'ONNX', '--modelFile', f'{folder}/a.onnx', '--MNNModel', f'{folder}/a.mnn']
    mnnconvert([*command, '--bizCode', 'a'])
    manager = MNN.nn.create_runtime_manager(({'backend': 'CPU', 'precision': 'high', 'numThread': 1},))
    network = MNN.nn.load_module_from_file(f'{folder}/a.mnn', ['x'], ['y'], runtime_manager=manager)
    x = MNN.expr.placeholder(list(X.shape), MNN.expr.NCHW, MNN.expr.float)
    x.write(X)
    return MNN.expr.convert(network.forward([x])[0], MNN.expr.NCHW).read().copy()


wrong = []
for kind in NORMS + OTHERS:
    for opset in (17, 18):
        model = reduction(kind, opset)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
        (known,) = session.run(None, {'x': X})
        found = by_mnn(model, sys.argv[1])
        equal = known.shape == found.shape and np.allclose(known, found, rtol=1e-4)
        print(f'{kind}, opset {opset}: ONNX Runtime {known.shape}, MNN {found.shape}, equal: {equal}', file=sys.stderr)
        wrong += [] if equal else [(kind, opset, found.shape)]
sys.exit(wrong != [(kind, 18, (1, 1, 1)) for kind in NORMS])
P
"$python" -W ignore "$folder/try.py" "$folder" 2>&1 >/dev/null
