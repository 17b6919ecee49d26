"""Show a dilation pattern: a table, and an image with the effective receptive field against the dense network's.

The receptive field is that of the last stage of the ResNet that the pattern is for, measured by gradients on white
noise; the dense network has the same weights, every dilation 1. Without --checkpoint the weights are random.

Examples:
  python tools/show_pattern.py detection/ic_resnet50_k9 --out pattern.png
  python tools/show_pattern.py geometric_d4 --network resnet18 --out pattern.png
"""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from icconv_mm.errors import InputError
from icconv_mm.patterns import load_pattern
from icconv_mm.patterns.zoo import is_analytic
from icconv_mm.utils import command_line

if TYPE_CHECKING:
    from torch import nn

NETWORKS = {f'resnet{depth}': ('ICResNet', depth) for depth in (18, 34, 50, 101, 152)}
NETWORKS |= {f'resnext{depth}': ('ICResNeXt', depth) for depth in (50, 101, 152)}


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    parser.add_argument('pattern', help='a file, a published name, or an analytic one (dense, geometric_d4)')
    parser.add_argument('--network', choices=NETWORKS, help='what it is for (default: the one that it fits)')
    parser.add_argument('--out', metavar='FILE.png', help='draw an image into this file')
    parser.add_argument('--checkpoint', metavar='FILE.pth', help='weights of the network, for the receptive field')
    parser.add_argument('--size', type=int, default=641, help='of the images in pixels; default: %(default)s')
    command_line.renamed_option(
        parser,
        '--images',
        parser.add_argument(
            '--count', type=int, default=2, metavar='N', help='how many are averaged; default: %(default)s'
        ),
    )
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
    from icconv_mm.checkpoints import safe
    from icconv_mm.checkpoints.matching import check_fits, state_dict_of
    from icconv_mm.patterns.receptive_field import effective_receptive_field, randomize

    dense, inception = build(network, 'dense'), build(network, args.pattern)
    if args.checkpoint:
        check_fits(inception, checkpoint := safe.load(args.checkpoint), args.checkpoint)
        inception.load_state_dict(state_dict_of(checkpoint))
    else:
        randomize(inception)
    dense.load_state_dict(inception.state_dict())
    fields = {}
    for name, net in ((network, dense), (args.pattern, inception)):
        with console.status(f'effective receptive field of {name}'):
            fields[name] = effective_receptive_field(net, args.size, args.count)
        extents = f'{fields[name].extent_h:.1f} x {fields[name].extent_w:.1f} pixels'
        meaning = '(height x width, root mean square distance from the centre)'
        console.out(f'effective receptive field of {name}: {extents} {meaning}', highlight=False)
    return fields


def show(args: argparse.Namespace, console: Console) -> None:
    from icconv_mm.layers import ICConv2d
    from icconv_mm.patterns.describe import draw_patterns, pattern_table

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
    fields = measure_fields(args, network, console) if network else None
    if args.out:
        draw_patterns(patterns, args.out, args.pattern, fields)
        console.out(f'image: {args.out}', highlight=False)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    with command_line.reporting(args.debug):
        show(args, Console())


if __name__ == '__main__':
    main()
