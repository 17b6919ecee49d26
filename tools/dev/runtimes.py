"""Runs exported networks in runtimes, each in an environment of its own, and writes the table of docs/export.md.

``make`` exports one network of each family with random weights; it needs this package's environment. ``run`` needs
numpy and the runtime alone, so call it by the Python of the runtime's environment. Each file runs in a process of its
own, because a runtime may end its process. ``table`` writes the results to ``docs/measurements`` and to the page.

Examples:
  python tools/dev/runtimes.py make work_dirs/runtimes
  ENVIRONMENT/bin/python tools/dev/runtimes.py run work_dirs/runtimes tract
  python tools/dev/runtimes.py table work_dirs/runtimes
"""

import argparse
import copy
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULTS = ROOT / 'docs/export.md', ROOT / 'docs/measurements/2026-11-28-runtimes.json'
START, END = '<!-- written by tools/dev/runtimes.py from here -->\n', '<!-- to here -->\n'
SIDE, SECONDS = 128, 900  # of the images; at most for a file
FAMILIES = {  # recipe of each column
    'IC-ResNet': 'classification/ic-resnet18_8xb32_in1k',
    'PyConvResNet': 'classification/pyconv-resnet18_8xb32-90e_in1k',
    'FPN': 'semantic_segmentation/fpn_ic-r18_miniature',
    'PyConvSegNet': 'semantic_segmentation/pyconvsegnet_pyconv-r18_miniature',
    'AE': 'pose/ae_ic-r18_miniature',
    'RTMO': 'pose/rtmo_ic-r50-k13_16xb16-600e_coco-640x640',
    'RetinaNet': 'detection/retinanet_ic-r50-k9_fpn_1x_coco',
    'Mask R-CNN': 'instance_segmentation/mask-rcnn_ic-r18_fpn_miniature',
    'all tasks': 'multitask/multitask_ic-r18_fpn_miniature',
}
PARTS, CONVERTS = ('input', 'output'), 'converts'
TITLES = {'fixed': 'Files of one size, `--fixed 1xHxW`:', 'free': 'Files of free sizes:'}
FORMS = {'fixed': (1, SIDE, SIDE), 'free': None}  # of the files, by their name's middle part
Arrays = Mapping[str, np.ndarray]


# --- the files


def make(folder: Path, families: Sequence[str]) -> None:
    """Writes the files of each family, and the inputs and outputs of its program in torch."""
    import cv2

    from export_survey import short_backbones

    folder.mkdir(parents=True, exist_ok=True)
    colors = np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8)
    image = cv2.resize(colors, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    for family in families or FAMILIES:
        with short_backbones():
            _make_family(folder / family, family, image)
        print(family, flush=True)


def _make_family(stem: Path, family: str, image: np.ndarray) -> None:
    import cv2
    import torch

    from export_survey import CONFIGS, make_small, save_random
    from icconv_mm import apis
    from icconv_mm.config_tree import kind_of
    from icconv_mm.runner.predict import inference_transforms
    from icconv_mm_runtime import Session

    run = apis.load_run(CONFIGS / f'{FAMILIES[family]}.py')
    make_small(run, (SIDE, SIDE))
    for transform in inference_transforms(run):
        if kind_of(transform) == 'ResizeEdge':
            transform['scale'] = SIDE
        elif kind_of(transform) == 'CenterCrop':
            transform['crop_size'] = SIDE
    if family == 'AE':
        run.cfg.model.test_cfg['flip_test'] = True
    elif family == 'RTMO':
        run.cfg.model.test_cfg['score_thr'] = 0.5  # runtimes round sigmoids near 0 differently
    with tempfile.TemporaryDirectory() as temporary:
        weights = f'{temporary}/weights.pth'
        cv2.imwrite(f'{temporary}/image.png', image)
        save_random(copy.deepcopy(run), weights)
        for out, to in [('fixed.onnx', 'onnx'), ('free.onnx', 'onnx'), ('fixed.pt2', 'program')]:
            fixed = FORMS[out.partition('.')[0]]
            apis.export(copy.deepcopy(run), weights, to, f'{stem}.{out}', images=temporary, fixed=fixed)
    session = Session(f'{stem}.fixed.onnx')
    inputs = {'image': image.transpose(2, 0, 1)[None]}
    if session.metadata['batch']['sized']:
        inputs['size'] = np.array([[SIDE - 16, SIDE - 32, 1, 1]], np.float32)
    with torch.no_grad():
        outputs = torch.export.load(f'{stem}.fixed.pt2').module()(*_arguments(inputs))
    names = [name for task in session.metadata['tasks'] for name in _outputs_of(task)]
    known = {f'output {name}': value.numpy() for name, value in zip(names, outputs, strict=True)}
    np.savez(f'{stem}.npz', **{f'input {name}': value for name, value in inputs.items()}, **known)


def _outputs_of(task: Mapping[str, Any]) -> list[str]:
    return [f'{task["name"]}.{name}' if task['name'] else name for name in task['outputs']]


def _arguments(inputs: Arrays) -> tuple:
    """Returns the arguments of a program: float32 pixels in a list, and the sizes."""
    import torch

    image, *size = (torch.from_numpy(value) for value in inputs.values())
    return ([image.float()], *size)


# --- the runtimes: each runs a file on inputs and returns its outputs, in any order by name or in the file's own


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
        made = json.loads(Path(folder, 'outputs.json').read_text())
        return {
            name: np.frombuffer(Path(folder, f'{name}.out').read_bytes(), kind).reshape(shape)
            for name, (kind, shape) in made.items()
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
                made = page.run(_PAGE.replace('GIVEN', given))
            finally:
                server.shutdown()
    return {name: np.frombuffer(bytes.fromhex(text), kind).reshape(shape) for name, (kind, shape, text) in made.items()}


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
        made = f'{folder}/network.mnn'
        mnnconvert(['mnnconvert', '-f', 'ONNX', '--modelFile', str(file), '--MNNModel', made, '--bizCode', 'icconv_mm'])
        if not Path(made).is_file():
            raise RuntimeError('mnnconvert wrote no file')
        manager = MNN.nn.create_runtime_manager(({'backend': 'CPU', 'precision': 'high', 'numThread': 1},))
        manager.set_hint(3, 0)  # Winograd's large tiles lose digits
        names = _names_of(file)
        network = MNN.nn.load_module_from_file(made, list(inputs), names, runtime_manager=manager)
        kinds = {'uint8': MNN.expr.uint8, 'float32': MNN.expr.float}
        values = []
        for value in inputs.values():
            placed = MNN.expr.placeholder(list(value.shape), MNN.expr.NCHW, kinds[str(value.dtype)])
            placed.write(value)
            values.append(placed)
        made = network.forward(values)
        return dict(zip(names, [MNN.expr.convert(each, MNN.expr.NCHW).read().copy() for each in made]))


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
    made = machine['main'](*(tvm.runtime.tensor(value) for value in inputs.values()))
    return [value.numpy() for value in (made if hasattr(made, '__len__') and not hasattr(made, 'shape') else [made])]


def onnx2tf(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        _call(sys.executable, '-m', 'onnx2tf', '-i', str(file), '-o', folder, '-n', '-kat', *inputs)
        made = list(Path(folder).glob('*_float32.tflite'))
        if not made:
            raise RuntimeError('onnx2tf writes no file and says no reason')
        found = _tflite(str(made[0]), inputs)
    shapes = [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in onnx.load(file).graph.output]
    # maps come out with channels last
    return [each if list(each.shape) == shape else each.transpose(0, 3, 1, 2) for each, shape in zip(found, shapes)]


def litert(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import litert_torch
    import torch

    arguments = _arguments(inputs)
    with tempfile.TemporaryDirectory() as folder:
        converted = litert_torch.convert(torch.export.load(file).module(), arguments)
        converted.export(f'{folder}/network.tflite')
        return _tflite(f'{folder}/network.tflite', inputs)


def _tflite(file: str, inputs: Arrays) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(file)
    values = {}
    for details in interpreter.get_input_details():
        value = next(each for each in inputs.values() if each.ndim == len(details['shape']))
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

    image, *size = _arguments(inputs)
    program = torch.export.load(file)
    made = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    method = Runtime.get().load_program(made.buffer).load_method('forward')
    return [value.numpy() for value in method.execute([*image, *size])]


def coreml(file: Path, inputs: Arrays) -> str:
    """Converts alone: Core ML runs on Apple's systems."""
    import coremltools
    import torch

    program = torch.export.load(file).run_decompositions({})
    made = coremltools.convert(program, minimum_deployment_target=coremltools.target.iOS17)
    description = made.get_spec().description
    counts = len(description.input), len(description.output)
    if counts != (len(inputs), len(_names_of(file))):
        raise RuntimeError(f'the specification has {counts[0]} inputs and {counts[1]} outputs')
    return CONVERTS


def ncnn(file: Path, inputs: Arrays) -> list[np.ndarray]:
    import ncnn
    import pnnx
    import torch

    arguments = _arguments(inputs)
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


# --- the results


def run(folder: Path, name: str, families: Sequence[str]) -> None:
    """Runs the files in a runtime, each in a process of its own, and writes ``FOLDER/results/NAME VERSION.json``."""
    version = version_of(name)
    path = folder / f'results/{name} {version}.json'
    path.parent.mkdir(exist_ok=True)
    cells = json.loads(path.read_text())['cells'] if path.is_file() else {}
    for form in forms_of(name):
        for family in families or FAMILIES:
            cells.setdefault(form, {})[family] = cell = outcome(folder, name, form, family)
            print(f'{name} {version}, {form}, {family}: {cell}', flush=True)
            path.write_text(json.dumps({'runtime': name, 'version': version, 'cells': cells}, indent=1) + '\n')


def forms_of(name: str) -> list[str]:
    """Returns the forms of files that a runtime gets; most converters take one size."""
    return ['fixed'] if name in (*OF_PROGRAMS, 'onnx2tf') else list(FORMS)


def version_of(name: str) -> str:
    """Returns the version of the installed runtime."""
    package = RUNTIMES[name][1]
    if package.startswith('onnxruntime-'):
        return json.loads(Path('node_modules', package, 'package.json').read_text())['version']
    return metadata.version(package)


def outcome(folder: Path, name: str, form: str, family: str) -> float | str:
    """Returns the largest difference of a file, or what stops it."""
    command = [sys.executable, __file__, 'one', str(folder), name, form, family]
    with tempfile.TemporaryFile('w+') as said:
        try:
            code = subprocess.run(command, stdout=said, stderr=subprocess.STDOUT, timeout=SECONDS).returncode
        except subprocess.TimeoutExpired:
            return f'does not end in {SECONDS} s'
        said.seek(0)
        text = said.read()
    if found := re.search(r'^RESULT (.*)$', text, re.MULTILINE):
        return json.loads(found[1])
    return f'the process ends by signal {-code}' if code < 0 else f'the process ends with status {code}'


def one(folder: Path, name: str, form: str, family: str) -> float | str:
    """Runs one file in this process."""
    file = folder / f'{family}.{form}{".pt2" if name in OF_PROGRAMS else ".onnx"}'
    with np.load(folder / f'{family}.npz') as arrays:
        parts = {part: {key.partition(' ')[2]: arrays[key] for key in arrays if key.startswith(part)} for part in PARTS}
    try:
        found = RUNTIMES[name][0](file, parts['input'])
    except Exception as error:  # a runtime may raise anything
        return _sentence(f'{type(error).__name__}: {error}')
    return found if isinstance(found, str) else difference(parts['output'], found)


def _sentence(text: str) -> str:
    """Returns the beginning of a message in one line, without paths and calls."""
    text = ' '.join(text.partition('Stack backtrace')[0].split())
    text = re.sub(r'(?<!\w)/[\w./+-]*/', '', text)
    return text if len(text) <= 200 else f'{text[:200]} ...'


def _order(known: Arrays, found: dict[str, np.ndarray], task: str) -> None:
    """Puts each box at the index of the nearest known one, in place: a last digit decides the order of equal scores."""
    names = [f'{task}{name}' for name in ('boxes', 'scores', 'labels', 'masks') if f'{task}{name}' in known]
    rows = [np.concatenate([of[name][0].reshape(len(of[name][0]), -1) for name in names], 1) for of in (known, found)]
    left, order = list(range(len(rows[0]))), []
    for row in rows[0]:
        order.append(left.pop(int(np.abs(rows[1][left] - row).sum(1).argmin())))
    for name in names:
        found[name] = found[name][:, order]


def difference(known: Arrays, found: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> float | str:
    """Returns the largest difference of an output, relative to its largest value."""
    if not isinstance(found, Mapping):
        found = dict(zip(known, found, strict=True))
    largest = 0.0
    found = {name: np.asarray(found[name]) for name in known}
    for name, value in known.items():
        if found[name].shape != value.shape:
            return f'the output {name} has the shape {list(found[name].shape)}, not {list(value.shape)}'
    for name in [name for name in known if name.endswith('boxes')]:
        _order(known, found, name.removesuffix('boxes'))
    for name, value in known.items():
        own = found[name]
        apart = np.abs(own.astype(np.float64) - value).max() / max(np.abs(value).max(), 1e-12)
        largest = max(largest, float(apart if np.isfinite(apart) else np.inf))
    return largest


# --- the table


def collect(folder: Path) -> None:
    """Adds the results in a folder to :data:`RESULTS`, in place of those of the same runtime, version and family."""
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else []
    known = {(each['runtime'], each['version']): each for each in results}
    for path in sorted(folder.glob('results/*.json')):
        made = json.loads(path.read_text())
        if (before := known.get((made['runtime'], made['version']))) is None:
            results.append(made)
            continue
        for form, cells in made['cells'].items():
            before['cells'].setdefault(form, {}).update(cells)
    order = list(RUNTIMES)
    results.sort(
        key=lambda each: (order.index(each['runtime']), [int(part) for part in re.findall(r'\d+', each['version'])])
    )
    RESULTS.write_text(json.dumps(results, indent=1) + '\n')


def tables(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a table for each form of the files, and what stops the others."""
    reasons: dict[str, int] = {}
    lines = []
    for form, title in TITLES.items():
        lines += [f'{title}\n', f'| | {" | ".join(FAMILIES)} |', f'|---{"|---" * len(FAMILIES)}|']
        for result in results:
            if own := result['cells'].get(form):
                cells = [_cell(own[family], reasons) if family in own else '' for family in FAMILIES]
                lines.append(f'| {result["runtime"]} {result["version"]} | {" | ".join(cells)} |')
        lines.append('')
    return '\n'.join([*lines, *(f'{number}. {reason}' for reason, number in reasons.items()), ''])


def _cell(value: float | str, reasons: dict[str, int]) -> str:
    if not isinstance(value, str):
        return f'{value:.0e}'.replace('e-0', 'e-') if value else '0'
    if value == CONVERTS:
        return value
    return f'({reasons.setdefault(value, len(reasons) + 1)})'


def page_with_table(text: str) -> str:
    """Returns the text of the page with the tables between its marks."""
    before, rest = text.split(START)
    return before + START + '\n' + tables(json.loads(RESULTS.read_text())) + '\n' + END + rest.split(END)[1]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name in ('make', 'run', 'one', 'table'):
        commands.add_parser(name).add_argument('folder', type=Path)
    for name in ('run', 'one'):
        commands.choices[name].add_argument('runtime', choices=RUNTIMES)
    for name in ('make', 'run'):
        commands.choices[name].add_argument('families', nargs='*', metavar='FAMILY', help='default: all')
    commands.choices['one'].add_argument('form', choices=FORMS)
    commands.choices['one'].add_argument('family', choices=FAMILIES)
    args = parser.parse_args(argv)
    if args.command == 'make':
        make(args.folder, args.families)
    elif args.command == 'run':
        run(args.folder, args.runtime, args.families)
    elif args.command == 'one':
        print('RESULT', json.dumps(one(args.folder, args.runtime, args.form, args.family)))
    else:
        collect(args.folder)
        PAGE.write_text(page_with_table(PAGE.read_text()))


if __name__ == '__main__':
    main()
