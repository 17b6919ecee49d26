#!/usr/bin/env bash
# onnx 1.22.0, onnxruntime 1.32.0, CPU provider on x86.
# Good guess: a 3x3 convolution of 48 channels divided into four of 24, 12, 6 and 6, which read the same map with
# dilations of their own and are concatenated, has as many products as before, and costs about as much.
# What happens: the optimiser rounds the outputs of each convolution up to its block, 16 channels where the processor has
# AVX-512, with filters of zeros, and cuts them off again before the concatenation: every map is reordered twice. It
# takes 2.3 times as long; divided into 32 and 16, whole blocks, 1.2 times. The written file shows none of it.
# Who is hurt: whoever exports Res2Net, inception-like or dilation-divided networks and counts their products.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install -q 'onnx==1.22.0' 'onnxruntime==1.32.0' 'numpy==2.4.6'
cat > "$folder/try.py" <<'P'
import sys
import time
from importlib.metadata import version

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

print(', '.join(f'{name} {version(name)}' for name in ('onnx', 'onnxruntime', 'numpy')))
CHANNELS, LAYERS, BLOCK, SIZE = 48, 8, 16, [1, 48, 36, 48]
IMAGE = np.random.default_rng(0).standard_normal(SIZE, np.float32)


def network(runs):
    """Layers of convolutions, one for each run of channels, whose maps are concatenated."""
    random, nodes, values, name = np.random.default_rng(1), [], [], 'x'
    for layer in range(LAYERS):
        made = []
        for dilation, count in enumerate(runs, 1):
            weight, out = f'w{layer}_{dilation}', f'c{layer}_{dilation}'
            filters = random.standard_normal((count, CHANNELS, 3, 3), np.float32) / 20
            values.append(numpy_helper.from_array(filters, weight))
            settings = dict(dilations=[dilation] * 2, pads=[dilation] * 4, kernel_shape=[3, 3])
            nodes.append(helper.make_node('Conv', [name, weight], [out], **settings))
            made.append(out)
        name = f'y{layer}'
        nodes.append(helper.make_node('Concat', made, [name], axis=1))
    ends = [helper.make_tensor_value_info(end, TensorProto.FLOAT, SIZE) for end in ('x', name)]
    graph = helper.make_graph(nodes, 'network', ends[:1], ends[1:], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def session(runs):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = f'{sys.argv[1]}/optimised.onnx'
    made = onnxruntime.InferenceSession(network(runs), options, providers=['CPUExecutionProvider'])
    graph = onnx.load(options.optimized_model_filepath).graph
    shapes = {value.name: list(value.dims) for value in graph.initializer}
    kinds = [node.op_type for node in graph.node]
    return made, [shapes[node.input[1]][:2] for node in graph.node if node.op_type == 'Conv'], kinds.count('ReorderOutput')


def seconds(made):
    began = time.process_time()
    for _ in range(20):
        made.run(None, {'x': IMAGE})
    return time.process_time() - began


RUNS = {'whole': [48], 'divided': [24, 12, 6, 6], 'in whole blocks': [32, 16]}
sessions = {name: session(runs) for name, runs in RUNS.items()}
times = {name: min(times) for name, times in zip(RUNS, zip(*([seconds(made) for made, *_ in sessions.values()] for _ in range(7))))}
failed = False
for name, runs in RUNS.items():
    rounded = [-(-count // BLOCK) * BLOCK for count in runs]
    expected = [[count, CHANNELS] for count in rounded] * LAYERS
    cut = rounded != runs
    _, found, reordered = sessions[name]
    failed |= sorted(found) != sorted(expected) or reordered != (len(runs) * LAYERS if cut else 1)
    print(f'{name} {runs}: outputs and inputs {sorted(map(list, set(map(tuple, found))))}, {reordered} maps reordered')
    print(f'  {times[name] / times["whole"]:.2f} of the time of the whole one')
sys.exit(failed)
P
"$python" "$folder/try.py" "$folder"
