"""Runtimes of exported networks: each runs a file in this process.

A runtime's environment has numpy and the runtime alone. A function takes the file and its inputs, and returns its
outputs by name or in the file's own order.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

CONVERTS = 'converts'  # what a converter returns where its file does not run here
Arrays = Mapping[str, np.ndarray]


def arguments_of(inputs: Arrays) -> tuple:
    """Returns the arguments of a program: float32 pixels in a list, and the sizes."""
    import torch

    image, *size = (torch.from_numpy(value) for value in inputs.values())
    return ([image.float()], *size)


def onnxruntime(file: Path, inputs: Arrays) -> dict[str, np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=['CPUExecutionProvider'])
    return dict(zip([output.name for output in session.get_outputs()], session.run(None, dict(inputs))))


_NODE = """
const ort = require(process.argv[1]), fs = require('fs'), [folder, file] = process.argv.slice(2);
(async () => {
  const given = JSON.parse(fs.readFileSync(folder + '/inputs.json')), feeds = {}, types = {};
  for (const [name, type, dims] of given) {
    const bytes = fs.readFileSync(`${folder}/${name}.bin`);
    const data = new Uint8Array(bytes).buffer;
    feeds[name] = new ort.Tensor(type, type === 'uint8' ? new Uint8Array(data) : new Float32Array(data), dims);
  }
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(file)));
  for (const [name, { type, dims, data }] of Object.entries(await session.run(feeds))) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    fs.writeFileSync(`${folder}/${name}.out`, bytes);
    types[name] = [type, dims];
  }
  fs.writeFileSync(folder + '/outputs.json', JSON.stringify(types));
  process.exit(0);
})().catch(error => { console.error(String(error.message || error)); process.exit(1); });
"""


def onnxruntime_node(file: Path, inputs: Arrays) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        given = [[name, str(value.dtype), value.shape] for name, value in inputs.items()]
        Path(folder, 'inputs.json').write_text(json.dumps(given))
        for name, value in inputs.items():
            Path(folder, f'{name}.bin').write_bytes(value.tobytes())
        _call('node', '-e', _NODE, 'onnxruntime-node', folder, str(file))
        outputs = json.loads(Path(folder, 'outputs.json').read_text())
        return {
            name: np.frombuffer(Path(folder, f'{name}.out').read_bytes(), kind).reshape(shape)
            for name, (kind, shape) in outputs.items()
        }


_PAGE = """
(async () => {
  const ort = await import('/dist/ort.wasm.min.mjs'), feeds = {}, found = {};
  for (const [name, type, dims] of GIVEN) {
    const data = await (await fetch(`/${name}.bin`)).arrayBuffer();
    feeds[name] = new ort.Tensor(type, type === 'uint8' ? new Uint8Array(data) : new Float32Array(data), dims);
  }
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create('/network.onnx', { executionProviders: ['wasm'] });
  for (const [name, { type, dims, data }] of Object.entries(await session.run(feeds))) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
    found[name] = [type, dims.map(Number), text];
  }
  return found;
})()
"""


def onnxruntime_web(file: Path, inputs: Arrays) -> dict[str, np.ndarray]:
    """WebAssembly on one thread of a headless Chromium."""
    from icconv_workshop.browser import browser

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'index.html').write_text('<!doctype html>')
        Path(folder, 'dist').symlink_to(Path('node_modules/onnxruntime-web/dist').resolve())
        Path(folder, 'network.onnx').symlink_to(file.resolve())
        for name, value in inputs.items():
            Path(folder, f'{name}.bin').write_bytes(value.tobytes())
        given = json.dumps([[name, str(value.dtype), value.shape] for name, value in inputs.items()])
        handler = partial(SimpleHTTPRequestHandler, directory=folder)
        with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server, browser() as page:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                page.open(f'http://127.0.0.1:{server.server_port}/')
                outputs = page.run(_PAGE.replace('GIVEN', given))
            finally:
                server.shutdown()
    return {
        name: np.frombuffer(bytes.fromhex(text), kind).reshape(shape) for name, (kind, shape, text) in outputs.items()
    }


def openvino(file: Path, inputs: Arrays) -> dict[str, np.ndarray]:
    import openvino

    compiled = openvino.Core().compile_model(str(file), 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
    names = [output.get_any_name() for output in compiled.outputs]
    return dict(zip(names, compiled(dict(inputs)).to_tuple()))


def opencv(file: Path, inputs: Arrays) -> dict[str, np.ndarray]:
    import cv2

    network = cv2.dnn.readNetFromONNX(str(file), cv2.dnn.ENGINE_NEW)
    for name, value in inputs.items():
        network.setInput(value, name)
    names = _names_of(file)
    return dict(zip(names, network.forward(names)))


def onnx_reference(file: Path, inputs: Arrays) -> dict[str, np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(file))
    return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs))))


def mnn(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import MNN
    from _tools import mnnconvert  # of MNN; the command of this name starts pip

    with tempfile.TemporaryDirectory() as folder:
        target = f'{folder}/network.mnn'
        mnnconvert(
            ['mnnconvert', '-f', 'ONNX', '--modelFile', str(file), '--MNNModel', target, '--bizCode', 'icconv_mm']
        )
        if not Path(target).is_file():
            raise RuntimeError('mnnconvert wrote no file')
        manager = MNN.nn.create_runtime_manager(({'backend': 'CPU', 'precision': 'high', 'numThread': 1},))
        manager.set_hint(3, 0)  # Winograd's large tiles lose digits
        names = _names_of(file)
        network = MNN.nn.load_module_from_file(target, list(inputs), names, runtime_manager=manager)
        kinds = {'uint8': MNN.expr.uint8, 'float32': MNN.expr.float}
        values = []
        for value in inputs.values():
            placed = MNN.expr.placeholder(list(value.shape), MNN.expr.NCHW, kinds[str(value.dtype)])
            placed.write(value)
            values.append(placed)
        target = network.forward(values)
        return dict(zip(names, [MNN.expr.convert(output, MNN.expr.NCHW).read().copy() for output in target]))


def tract(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import tract

    network = tract.onnx().load(str(file))
    for number, value in enumerate(inputs.values()):
        kind = {'uint8': 'u8', 'float32': 'f32'}[str(value.dtype)]
        network.set_input_fact(number, f'{",".join(map(str, value.shape))},{kind}')
    return [value.to_numpy() for value in network.into_model().into_runnable().run(list(inputs.values()))]


def tvm(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import onnx
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    shapes = {name: list(value.shape) for name, value in inputs.items()}
    module = from_onnx(onnx.load(str(file)), shapes, {name: str(value.dtype) for name, value in inputs.items()})
    machine = relax.VirtualMachine(tvm.compile(relax.transform.LegalizeOps()(module), 'llvm'), tvm.cpu())
    outputs = machine['main'](*(tvm.runtime.tensor(value) for value in inputs.values()))
    return [
        value.numpy()
        for value in (outputs if hasattr(outputs, '__len__') and not hasattr(outputs, 'shape') else [outputs])
    ]


def onnx2tf(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        _call(sys.executable, '-m', 'onnx2tf', '-i', str(file), '-o', folder, '-n', '-kat', *inputs)
        files = list(Path(folder).glob('*_float32.tflite'))
        if not files:
            raise RuntimeError('onnx2tf writes no file and says no reason')
        outputs = _tflite(str(files[0]), inputs)
    shapes = [[dim.dim_value for dim in output.type.tensor_type.shape.dim] for output in onnx.load(file).graph.output]
    # maps come out with channels last
    return [
        output if list(output.shape) == shape else output.transpose(0, 3, 1, 2)
        for output, shape in zip(outputs, shapes)
    ]


def litert(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import litert_torch
    import torch

    arguments = arguments_of(inputs)
    with tempfile.TemporaryDirectory() as folder:
        converted = litert_torch.convert(torch.export.load(file).module(), arguments)
        converted.export(f'{folder}/network.tflite')
        return _tflite(f'{folder}/network.tflite', inputs)


def _tflite(file: str, inputs: Arrays) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file)
    values = {}
    for details in interpreter.get_input_details():
        value = next(tensor for tensor in inputs.values() if tensor.ndim == len(details['shape']))
        if value.ndim == 4 and details['shape'][1] != 3:
            value = value.transpose(0, 2, 3, 1)
        interpreter.resize_tensor_input(details['index'], value.shape)
        values[details['index']] = value.astype(details['dtype'])
    interpreter.allocate_tensors()
    for index, value in values.items():
        interpreter.set_tensor(index, value)
    interpreter.invoke()
    return [interpreter.get_tensor(details['index']) for details in interpreter.get_output_details()]


def executorch(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    image, *size = arguments_of(inputs)
    program = torch.export.load(file)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    method = Runtime.get().load_program(lowered.buffer).load_method('forward')
    return [value.numpy() for value in method.execute([*image, *size])]


def coreml(file: Path, inputs: Arrays) -> str:
    """Converts alone: Core ML runs on Apple's systems."""
    import coremltools
    import torch

    program = torch.export.load(file).run_decompositions({})
    model = coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS17)
    description = model.get_spec().description
    counts = len(description.input), len(description.output)
    if counts != (len(inputs), len(_names_of(file))):
        raise RuntimeError(f'the specification has {counts[0]} inputs and {counts[1]} outputs')
    return CONVERTS


def ncnn(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import ncnn
    import pnnx
    import torch

    arguments = arguments_of(inputs)
    with tempfile.TemporaryDirectory() as folder:
        flat = [*arguments[0], *arguments[1:]]

        class Flat(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = torch.export.load(file).module()

            def train(self, mode: bool = True) -> torch.nn.Module:
                return self  # pnnx calls it, and a program has no modes

            def forward(self, image, *size):
                return self.network([image], *size)

        pnnx.export(Flat(), f'{folder}/network.pt', tuple(flat), fp16=False)
        network = ncnn.Net()
        for name in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
            setattr(network.opt, name, False)
        if network.load_param(f'{folder}/network.ncnn.param') or network.load_model(f'{folder}/network.ncnn.bin'):
            raise RuntimeError('ncnn does not load what pnnx wrote')
        extractor = network.create_extractor()
        for name, value in zip(network.input_names(), flat):
            extractor.input(name, ncnn.Mat(value[0].numpy()).clone())
        return [np.array(extractor.extract(name)[1])[None] for name in network.output_names()]


RUNTIMES: dict[str, tuple[Callable, str]] = {  # with the distribution whose version counts
    'ONNX Runtime': (onnxruntime, 'onnxruntime'),
    'onnxruntime-node': (onnxruntime_node, 'onnxruntime-node'),
    'onnxruntime-web, wasm': (onnxruntime_web, 'onnxruntime-web'),
    'OpenVINO': (openvino, 'openvino'),
    'OpenCV': (opencv, 'opencv-python-headless'),
    'onnx.reference': (onnx_reference, 'onnx'),
    'MNN': (mnn, 'MNN'),
    'tract': (tract, 'tract'),
    'TVM': (tvm, 'apache-tvm'),
    'onnx2tf': (onnx2tf, 'onnx2tf'),
    'LiteRT': (litert, 'litert-torch'),
    'ExecuTorch': (executorch, 'executorch'),
    'Core ML': (coreml, 'coremltools'),
    'ncnn': (ncnn, 'ncnn'),
}
OF_PROGRAMS = 'LiteRT', 'ExecuTorch', 'Core ML', 'ncnn'  # read the program of torch; the others read ONNX


def _names_of(file: Path) -> list[str]:
    """Returns the names of a file's outputs, for runtimes that ask for them."""
    with np.load(file.with_name(f'{file.name.split(".")[0]}.npz')) as arrays:
        return [name.removeprefix('output ') for name in arrays if name.startswith('output ')]


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip())
    return done.stdout
