"""Suite 'ops': the inception convolutions of IC-ResNet-50 on an 800 x 1088 picture, by backend, against dense ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from icconv_mm.ops import backends, inception_conv2d, use_backend
from icconv_mm.patterns import DilationPattern, load_pattern

from . import Disagreement, Figure, Options, interleave

PATTERN, SUBSTITUTE = 'detection/ic_resnet50_k9', 'geometric_d4'
CHANNELS = (64,) * 3 + (128,) * 4 + (256,) * 6 + (512,) * 3  # of the sixteen layers, in forward order
# layer -> (height and width of its input, stride)
LAYERS = {1: ((200, 272), 1), 3: ((200, 272), 2), 4: ((100, 136), 1), 8: ((50, 68), 1), 14: ((25, 34), 1)}
TOLERANCE = 1e-4  # of the largest value, in float32


def run(options: Options) -> list[Figure]:
    """Every available backend against the dense convolution of the same shape, float32, batch 1, forward.

    Raises:
        Disagreement: If a backend's result differs from the reference's.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    names = [name for name, status in backends().items() if status and name != 'cuda']
    if options.device.startswith('cuda'):
        names = [name for name, status in backends().items() if status and name != 'cpu']
    name, patterns = _patterns()
    figures = []
    for layer, (size, stride) in LAYERS.items():
        figures += _layer(layer, patterns[layer], size, stride, names, name, options)
    return figures


def _patterns() -> tuple[str, list[DilationPattern]]:
    """The published pattern, or an analytic one where it is not at hand."""
    try:
        return PATTERN, load_pattern(PATTERN)
    except FileNotFoundError:
        return SUBSTITUTE, load_pattern(SUBSTITUTE, CHANNELS)


@torch.no_grad()
def _layer(layer, pattern, size, stride, names, pattern_name, options) -> list[Figure]:
    width = CHANNELS[layer]
    generator = torch.Generator().manual_seed(layer)
    x = torch.randn(1, width, *size, generator=generator).to(options.device, memory_format=torch.channels_last)
    weight = torch.randn(width, width, 3, 3, generator=generator).to(options.device)
    dense = weight.to(memory_format=torch.channels_last)

    def call(backend: str) -> torch.Tensor:
        with use_backend(backend):
            return inception_conv2d(x, weight, None, pattern, stride)

    expected = call('reference')
    for backend in names:
        error = ((call(backend) - expected).abs().max() / expected.abs().max()).item()
        if error > TOLERANCE:
            raise Disagreement(f'layer {layer}: backend {backend} differs from the reference by {error:.1e}')
    contenders = {backend: lambda backend=backend: call(backend) for backend in names}
    times = interleave({'dense': lambda: F.conv2d(x, dense, None, stride, 1), **contenders}, options)
    notes = {'input': 'x'.join(map(str, (width, *size))), 'stride': stride, 'pattern': pattern_name}
    return [Figure('ops', f'layer {layer}: {name} / dense', times[name], times['dense'], notes=notes) for name in names]
