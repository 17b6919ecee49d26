"""Suite 'export': backbones as exported files, against the dense ResNet-50 in the same runtime."""

import copy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import onnx
import onnxruntime
import openvino
import torch
from torch import Tensor, nn

from icconv_mm.app.export.onnx_files import count_convolutions, to_onnx
from icconv_mm.app.export.writers import compile_pt2, standard_module
from icconv_mm.backbones import ICResNet, PyConvResNet
from icconv_mm.deployment import deploy
from icconv_mm.patterns.receptive_field import randomize
from icconv_workshop.benchmark.harness import check_equal, of_maximum
from icconv_workshop.benchmark.patterns import find_pattern
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.suites.backbone import torchvision_resnet
from icconv_workshop.benchmark.timing import Options, interleave

PATTERNS = 'detection/ic_resnet50_k9', 'geometric_d4'
LIMITS = {'IC-R50-k9': 1.20, 'PyConvResNet-50': 1.25}  # against the dense network in the same runtime
IN_TORCH = {(800, 1088): 1.0, (224, 224): 1.15}  # of the deployed IC-R50-k9 against the dense network in ONNX Runtime
RUNTIMES = 'onnxruntime', 'openvino'
TIMES = 2  # the error of the network in PyTorch, from double precision, that another form may have

Run = Callable[[], list[Tensor]]


def run(options: Options) -> Iterator[Figure]:
    """Figures of both sizes, all contenders of a size in turn.

    Raises:
        Disagreement: If a file gives other maps than its network.
    """
    used = find_pattern(*PATTERNS)
    makers = {
        'ResNet-50': partial(torchvision_resnet, 50),
        'IC-R50-k9': partial(ICResNet, 50, used),
        'PyConvResNet-50': partial(PyConvResNet, 50),
    }
    for size in IN_TORCH:
        label = f'1x3x{size[0]}x{size[1]}'
        if not any(options.wants(f'{name} {label}') for name in makers):
            continue
        x = torch.randn(1, 3, *options.scaled(*size))
        calls: dict[str, Run] = {}
        counts = {}
        for name, make in makers.items():
            with tempfile.TemporaryDirectory() as folder:
                counts[name] = _add(calls, name, make(), x, options, Path(folder))
        times = interleave(calls, options)
        limited = options.scale == 1 and used == PATTERNS[0]
        for name, limit in LIMITS.items():
            notes = {'convolutions': f'{counts[name]} / {counts["ResNet-50"]}', 'pattern': used}
            for runtime in RUNTIMES:
                ours, dense = times[f'{name} {runtime}'], times[f'ResNet-50 {runtime}']
                yield Figure('export', f'{name} {label} {runtime}', ours, dense, limit if limited else None, notes)
            for form in ('eager', 'deployed', 'pt2', 'pt2 with our operator'):
                wanted = IN_TORCH[size] if limited and (name, form) == ('IC-R50-k9', 'deployed') else None
                figure = f'{name} {label}: {form} / dense in onnxruntime'
                yield Figure('export', figure, times[f'{name} {form}'], times['ResNet-50 onnxruntime'], wanted)


@torch.no_grad()
def _add(calls: dict[str, Run], name: str, network: nn.Module, x: Tensor, options: Options, folder: Path) -> int:
    """All forms of a network among the calls, after they have given equal maps; the convolutions of its file."""
    randomize(network)
    network = network.eval().requires_grad_(False)
    deployed, threads = deploy(network), options.threads or torch.get_num_threads()
    model = as_onnx(deployed, x)
    onnx.save(model, str(folder / 'network.onnx'))
    fixed = torch.export.export(deployed, (x,), strict=False)
    standard = standard_module(fixed).to(memory_format=torch.channels_last)
    runs = {
        'eager': partial(in_torch, network, x),
        'deployed': partial(in_torch, deployed, x.to(memory_format=torch.channels_last)),
        'onnxruntime': in_onnxruntime(folder / 'network.onnx', x, threads),
        'openvino': in_openvino(folder / 'network.onnx', x, threads),
        'pt2': _pt2(torch.export.export(standard, (x,), strict=False), x, folder / 'standard.pt2'),
        'pt2 with our operator': _pt2(fixed, x, folder / 'operator.pt2'),
    }
    exact = in_torch(copy.deepcopy(network).double(), x.double())
    error = max(of_maximum(one, other) for one, other in zip(runs['eager'](), exact, strict=True))
    for form, call in runs.items():
        check_equal(f'{name} {form}', call(), exact, TIMES * error)
        calls[f'{name} {form}'] = call
    return count_convolutions(model)


def as_onnx(network: nn.Module, x: Tensor) -> onnx.ModelProto:
    """Returns a deployed backbone of four maps as ONNX, for images of one size, as ``--fixed`` writes it."""
    program = torch.export.export(network, (x,), strict=False)
    return to_onnx(program, ['image'], [f'map{number}' for number in range(4)])


@torch.no_grad()
def in_torch(network: Callable, x: Tensor) -> list[Tensor]:
    """Returns the maps of a network."""
    return list(network(x))


def in_onnxruntime(file: Path, x: Tensor, threads: int) -> Run:
    """Returns the call of an ONNX file in ONNX Runtime."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.add_session_config_entry('session.intra_op.allow_spinning', '0')  # which would take time of the others
    session = onnxruntime.InferenceSession(str(file), settings, providers=['CPUExecutionProvider'])
    return lambda: [torch.from_numpy(output) for output in session.run(None, {'image': x.numpy()})]


def in_openvino(network: Path | openvino.Model, x: Tensor, threads: int) -> Run:
    """Returns the call of an ONNX file, or of a model, in OpenVINO."""
    settings = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_NUM_THREADS': threads, 'INFERENCE_PRECISION_HINT': 'f32'}
    request = openvino.Core().compile_model(network, 'CPU', settings).create_infer_request()
    return lambda: [torch.from_numpy(output) for output in request.infer([x.numpy()]).values()]


def _pt2(program: torch.export.ExportedProgram, x: Tensor, file: Path) -> Run:
    compile_pt2(program, file)
    return partial(in_torch, torch._inductor.aoti_load_package(str(file)), x)
