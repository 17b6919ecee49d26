"""Suite 'blocks': exported IC-ResNet-50 by the block of channels of its pattern, against the dense ResNet-50."""

import copy
import logging
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from icconv_mm.app.export import writers
from icconv_mm.app.export.onnx_files import count_convolutions
from icconv_mm.app.export.quantization import by_nncf, by_onnxruntime, predictors
from icconv_mm.backbones import ICResNet
from icconv_mm.deployment import deploy
from icconv_mm.patterns.receptive_field import randomize
from icconv_workshop.benchmark.harness import check_equal, of_norm
from icconv_workshop.benchmark.patterns import find_pattern
from icconv_workshop.benchmark.report import Figure
from icconv_workshop.benchmark.suites.backbone import torchvision_resnet
from icconv_workshop.benchmark.suites.export import (
    PATTERNS,
    TIMES,
    Run,
    as_onnx,
    in_onnxruntime,
    in_openvino,
    in_torch,
)
from icconv_workshop.benchmark.timing import Options, interleave

SIZES = (224, 224), (800, 1088)
BLOCKS = None, 8, 16, 32  # channels; None for the pattern as it is
EIGHT_BITS = 0.2  # how far maps may be off, of their norm
DENSE = 'ResNet-50'
DEPLOYED = 'deployed in PyTorch / dense in onnxruntime'


def run(options: Options) -> Iterator[Figure]:
    """Figures of both sizes, all contenders of a size in turn.

    Raises:
        Disagreement: If a file gives other maps than its network.
    """
    logging.getLogger('nncf').setLevel(logging.WARNING)  # it names each operation that stays in floats
    used = find_pattern(*PATTERNS)
    makers = {DENSE: partial(torchvision_resnet, 50)}
    for block in BLOCKS:
        makers[f'IC-R50-k9{f" in blocks of {block}" if block else ""}'] = partial(ICResNet, 50, used, align=block)
    for size in SIZES:
        label = f'1x3x{size[0]}x{size[1]}'
        ours = [name for name in makers if name != DENSE and options.wants(f'{name} {label}')]
        if not ours:
            continue
        x = torch.randn(1, 3, *options.scaled(*size), generator=torch.Generator().manual_seed(0))
        calls: dict[tuple[str, str], Run] = {}
        counts = {}
        for name in (DENSE, *ours):
            with tempfile.TemporaryDirectory() as folder:
                forms, counts[name] = _forms(name, makers[name](), x, options, Path(folder))
            calls |= {(name, form): call for form, call in forms.items()}
        times = interleave(calls, options)
        for name, form in calls:
            if name != DENSE:
                notes = {'convolutions': f'{counts[name]} / {counts[DENSE]}', 'pattern': used}
                figure = f'{name} {label} {form}'
                dense = 'onnxruntime float32' if form == DEPLOYED else form
                yield Figure('blocks', figure, times[name, form], times[DENSE, dense], None, notes)


@torch.no_grad()
def _forms(name: str, network: nn.Module, x: Tensor, options: Options, folder: Path) -> tuple[dict[str, Run], int]:
    """Returns the calls of a network by runtime and precision, which give its maps, and its number of convolutions."""
    randomize(network)
    network = network.eval().requires_grad_(False)
    threads = options.threads or torch.get_num_threads()
    deployed = deploy(network)
    model = as_onnx(deployed, x)
    count = count_convolutions(model)
    file, rounded = folder / 'network.onnx', folder / 'rounded.onnx'
    onnx.save(model, str(file))
    kept, inputs = predictors(model), [{'image': x.numpy()}]
    by_onnxruntime(model, rounded, iter(inputs), kept)
    calls = {
        DEPLOYED: partial(in_torch, deployed, x.to(memory_format=torch.channels_last)),
        'onnxruntime float32': in_onnxruntime(file, x, threads),
        'openvino float32': in_openvino(file, x, threads),
        'onnxruntime 8 bits': in_onnxruntime(rounded, x, threads),
        'openvino 8 bits': in_openvino(by_nncf(writers.to_openvino(model), inputs, kept), x, threads),
    }
    maps = in_torch(copy.deepcopy(network).double(), x.double())
    error = max(of_norm(one, other) for one, other in zip(in_torch(network, x), maps, strict=True))
    for form, call in calls.items():
        if form.endswith('8 bits'):  # random weights amplify rounding from map to map, in the dense network alike
            check_equal(f'{name} {form}', call()[:1], maps[:1], EIGHT_BITS, of_norm)
        else:
            check_equal(f'{name} {form}', call(), maps, TIMES * error, of_norm)
    return calls, count
