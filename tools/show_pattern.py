"""Show a dilation pattern: a table, and an image with the effective receptive field against the dense network's.

The receptive field is that of the last stage of the ResNet that the pattern is for, measured by gradients on white
noise; the dense network has the same weights, every dilation 1. Without --checkpoint the weights are random.

Examples:
  python tools/show_pattern.py detection/ic_resnet50_k9 --out pattern.png
  python tools/show_pattern.py geometric_d4 --network resnet18 --out pattern.png
"""

import argparse
from collections.abc import Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from icconv_mm.app.commands import command_line
from icconv_mm.errors import InputError, naming
from icconv_mm.patterns import DilationPattern, load_pattern
from icconv_mm.patterns.load import is_analytic

if TYPE_CHECKING:
    from torch import nn

    from icconv_mm.patterns.receptive_field import ReceptiveField

NETWORKS = {f'resnet{depth}': ('ICResNet', depth) for depth in (18, 34, 50, 101, 152)}
NETWORKS |= {f'resnext{depth}': ('ICResNeXt', depth) for depth in (50, 101, 152)}

# Least block of channels -> time of the exported IC-ResNet-50 as a share of the dense network's, 224x224, float32
PRICES = {
    32: {'ONNX Runtime': 1.104, 'OpenVINO': 1.038},
    16: {'ONNX Runtime': 1.204, 'OpenVINO': 1.086},
    8: {'ONNX Runtime': 1.263, 'OpenVINO': 1.196},
    1: {'ONNX Runtime': 1.316, 'OpenVINO': 1.29},
}
MEASURED = 'docs/measurements/2026-11-28-aligned-patterns.md'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    parser.add_argument('pattern', help='a file, a published name, or an analytic one (dense, geometric_d4)')
    parser.add_argument('--network', choices=NETWORKS, help='what it is for (default: the one that it fits)')
    parser.add_argument('--out', metavar='FILE.png', help='draw an image into this file')
    parser.add_argument('--checkpoint', metavar='FILE.pth', help='weights of the network, for the receptive field')
    parser.add_argument('--size', type=int, default=641, help='of the images in pixels; default: %(default)s')
    parser.add_argument('--count', type=int, default=2, metavar='N', help='how many are averaged; default: %(default)s')
    args = parser.parse_args(argv)
    if args.size < 32 or args.count < 1:
        parser.error(f'expected --size of 32 or more and --count of 1 or more, got {args.size} and {args.count}')
    return args


def build(network: str, pattern: str, device: str = 'cpu') -> 'nn.Module':
    """One of :data:`NETWORKS`; on the device 'meta' it has shapes only."""
    import torch

    from icconv_mm import backbones

    name, depth = NETWORKS[network]
    with torch.device(device):
        return getattr(backbones, name)(depth, pattern)


def fitting_network(pattern: str) -> str | None:
    """The name of the network that a pattern file fits, or None."""
    if is_analytic(pattern):
        raise InputError(f'{pattern!r} fits every network: say which with --network, one of {", ".join(NETWORKS)}')
    load_pattern(pattern)  # what is wrong with the file itself is an error
    for name in NETWORKS:
        try:
            build(name, pattern, 'meta')
        except InputError:
            continue
        return name
    return None


def measure_fields(args: argparse.Namespace, network: str, console: Console) -> dict:
    """The effective receptive fields of the dense network and of this one, with the same weights."""
    from icconv_mm.app.commands.tables import plain
    from icconv_mm.checkpoints import reading
    from icconv_mm.checkpoints.matching import check_fits, state_dict_of
    from icconv_mm.patterns.receptive_field import effective_receptive_field, randomize

    dense, inception = build(network, 'dense'), build(network, args.pattern)
    if args.checkpoint:
        check_fits(inception, checkpoint := reading.read(args.checkpoint), args.checkpoint)
        inception.load_state_dict(state_dict_of(checkpoint))
    else:
        randomize(inception)
    dense.load_state_dict(inception.state_dict())
    fields = {}
    for name, net in ((network, dense), (args.pattern, inception)):
        with console.status(plain(f'effective receptive field of {name}')):
            fields[name] = effective_receptive_field(net, args.size, args.count)
        extents = f'{fields[name].extent_h:.1f} x {fields[name].extent_w:.1f} pixels'
        meaning = '(height x width, root mean square distance from the centre)'
        console.out(f'effective receptive field of {name}: {extents} {meaning}', highlight=False)
    return fields


def show(args: argparse.Namespace, console: Console) -> None:
    from icconv_mm.layers import ICConv2d

    network = args.network or fitting_network(args.pattern)
    names = None
    if network is None:
        patterns = load_pattern(args.pattern)
        console.print('it fits no ResNet or ResNeXt-32x4d of 18 to 152 layers: no receptive field', soft_wrap=True)
    else:
        modules = build(network, args.pattern, 'meta').named_modules()
        layers = {name: module for name, module in modules if isinstance(module, ICConv2d)}
        names, patterns = list(layers), [layer.pattern for layer in layers.values()]
    console.print(pattern_table(patterns, f'{args.pattern} ({network or "other network"})', names))
    if network is not None:
        count = sum(layer.exported_convolutions for layer in layers.values())
        console.out(
            f'an exported file has {count} standard convolutions for these {len(layers)} layers', highlight=False
        )
    if not all(pattern.is_uniform for pattern in patterns):
        console.out(block_message(patterns), highlight=False)
    fields = measure_fields(args, network, console) if network else None
    if args.out:
        draw_patterns(patterns, args.out, args.pattern, fields)
        console.out(f'image: {args.out}', highlight=False)


def block_of_channels(patterns: Sequence[DilationPattern]) -> int:
    """The largest block, in every layer, of which each dilation has a whole number: the smallest over the layers."""
    return min(gcd(*pattern.histogram().values()) for pattern in patterns)


def block_message(patterns: Sequence[DilationPattern]) -> str:
    """The block of channels, and what such blocks cost in an exported IC-ResNet-50."""
    block = block_of_channels(patterns)
    least = max(bound for bound in PRICES if bound <= block)
    prices = ', '.join(f'{ratio} in {runtime}' for runtime, ratio in PRICES[least].items())
    kind = f'blocks of {least}' if least > 1 else 'smaller blocks'
    price = f'an exported IC-ResNet-50 with {kind} takes {prices} of the dense time'
    return f'block: {block} channels; {price} ({MEASURED})'


def mean_dilation(pattern: DilationPattern) -> tuple[float, float]:
    """Mean dilation (height, width) over the output channels."""
    total = pattern.out_channels
    return sum(n * h for n, h, _ in pattern) / total, sum(n * w for n, _, w in pattern) / total


def pattern_table(patterns: Sequence[DilationPattern], title: str, names: Sequence[str] | None = None) -> Table:
    """One row per layer: channels (or groups), runs, mean and largest dilation, share of undilated channels.

    ``names`` are those of the layers; without them they are numbered.
    """
    from icconv_mm.app.commands.tables import table

    rows = [('layer', 'channels', 'runs', 'mean d_h', 'mean d_w', 'max', 'undilated')]
    for name, pattern in zip(names or map(str, range(len(patterns))), patterns):
        means = [f'{mean:.2f}' for mean in mean_dilation(pattern)]
        undilated = pattern.histogram().get((1, 1), 0) / pattern.out_channels
        counts = pattern.out_channels, len(pattern), *means, pattern.max_dilation
        rows.append((name, *map(str, counts), f'{undilated:.0%}'))
    return table(title, rows, {'layer'})


def draw_patterns(
    patterns: Sequence[DilationPattern],
    path: str | Path,
    title: str,
    fields: 'Mapping[str, ReceptiveField] | None' = None,
) -> None:
    """Draws the dilation histogram of every layer and, if given, effective receptive fields on one scale.

    Args:
        patterns: The pattern of each layer.
        path: The image to write, in a format that matplotlib knows by its suffix.
        title: Above it.
        fields: Name of a network -> its field, e.g. of the dense network and of this one.
    """
    from matplotlib.figure import Figure  # takes a moment, and most who read patterns draw none

    fields = dict(fields or {})
    figure = Figure(figsize=(7 + 4 * len(fields), 5), layout='constrained')
    axes = figure.subplots(1, 1 + len(fields), width_ratios=[1.5] + [1] * len(fields), squeeze=False)[0]
    figure.suptitle(title)
    _draw_histograms(figure, axes[0], patterns)
    _draw_fields(figure, axes[1:], fields)
    with naming(str(path), OSError, ValueError):  # the latter: a suffix that matplotlib does not know
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def _draw_histograms(figure, axis, patterns: Sequence[DilationPattern]) -> None:
    from matplotlib.colors import PowerNorm

    dilations = sorted({dilation for pattern in patterns for dilation in pattern.histogram()})
    shares = [[p.histogram().get(d, 0) / p.out_channels for d in dilations] for p in patterns]
    image = axis.imshow(shares, aspect='auto', cmap='Blues', norm=PowerNorm(0.5, 0, 1))
    axis.set_xticks(range(len(dilations)), [f'{h},{w}' for h, w in dilations], rotation=90, fontsize='x-small')
    axis.set(xlabel='dilation (height, width)', ylabel='layer, in forward order', title='share of the output channels')
    figure.colorbar(image, ax=axis)


def _draw_fields(figure, axes, fields: Mapping[str, 'ReceptiveField']) -> None:
    from matplotlib.colors import LogNorm

    if not fields:
        return
    peak = max(field.share.max().item() for field in fields.values())
    scale = LogNorm(peak * 1e-4, peak)
    for axis, (name, field) in zip(axes, fields.items()):
        image = axis.imshow(field.share.clamp(min=peak * 1e-4), cmap='magma', norm=scale)
        axis.set_title(f'{name}\n{field.extent_h:.0f} x {field.extent_w:.0f} pixels (rms)')
        axis.set(xlabel='input column', ylabel='input row')
    figure.colorbar(image, ax=list(axes), label='share of the squared gradient')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with command_line.reporting(args.debug):
        from icconv_mm.app.commands.tables import console

        show(args, console())


if __name__ == '__main__':
    main()
