"""Search the dilation pattern of a trained supernet (EDO), or read the one that RF-Next found.

The supernet is ICResNet(..., supernet_d_max=D) or any network through icconv_mm.layers.to_supernet.

Examples:
  python tools/search_pattern.py supernet.pth --d-max 4 --out pattern.json --checkpoint-out ic_init.pth
  python tools/search_pattern.py local_search_config_step11.json --config config.py --out pattern.json   # RF-Next
"""

import argparse
import itertools
from collections.abc import Sequence

from rich.console import Console

from icconv_mm.apis import load_config
from icconv_mm.patterns.search import CRITERIA
from icconv_mm.runner import command_line


def main(argv: Sequence[str] | None = None) -> None:
    parser = command_line.parser(__doc__)
    parser.add_argument('checkpoint', help="weights of the supernet; or a .json that mmcv's RFSearchHook has written")
    parser.add_argument('--d-max', type=int, help='the largest dilation of a supernet; kernels are 2 * D_MAX + 1')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='the pattern file to write')
    parser.add_argument(
        '--checkpoint-out', metavar='FILE.pth', help='also write an initial checkpoint that inherits the kept taps'
    )
    parser.add_argument('--criterion', choices=CRITERIA, default=CRITERIA[0], help='default: %(default)s')
    parser.add_argument('--filter', metavar='REGEX', help='which layers; default: all kernels above 3x3 but the stem')
    parser.add_argument('--groups', type=int, default=1, help='groups of these convolutions, unless --config tells')
    parser.add_argument('--align', type=int, metavar='N', help='multiples of N channels for each dilation, such as 32')
    parser.add_argument('--config', help='config of the network; needed for --images, and for a .json')
    parser.add_argument('--images', metavar='DIR', help='measure the channel means on the images of this folder')
    parser.add_argument(
        '--count', type=int, default=300, metavar='N', help='at most so many of them; default: %(default)s'
    )
    args = parser.parse_args(argv)
    if args.images and not args.config:
        parser.error('--images needs --config: channel means are measured in the network')
    if args.checkpoint.endswith('.json'):
        _convert_rf_next(parser, args)
    else:
        _search(parser, args)
    Console().out(f'pattern: {args.out}', highlight=False)
    if args.checkpoint_out:
        Console().out(f'initial checkpoint with the kept taps: {args.checkpoint_out}', highlight=False)


def _convert_rf_next(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if not args.config:
        parser.error('a .json of RFSearchHook needs --config: it names layers of that network')
    for option in ('d_max', 'checkpoint_out', 'images', 'align'):
        if getattr(args, option) is not None:
            parser.error(f'--{option.replace("_", "-")} is of a supernet, not of a .json of RFSearchHook')
    with command_line.reporting(args.debug, after='Nothing was written.'):
        from icconv_mm.apis import convert_rf_next
        from icconv_tools.tables import table

        patterns = convert_rf_next(args.checkpoint, args.config, args.out, args.filter)
    rows = [(name, str(layer.out_channels), str(tuple(layer.entries[0][1:]))) for name, layer in patterns.items()]
    Console().print(table('Dilations per layer', [('layer', 'channels', '(h, w)'), *rows], {'layer'}))


def _search(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.d_max is None:
        parser.error('--d-max is needed: the largest dilation that the supernet was built with')
    with command_line.reporting(args.debug, after='Nothing was written.'):
        from icconv_mm.apis import read_images, search_checkpoint
        from icconv_tools.search_pipeline import results_table

        config = load_config(args.config) if args.config else None
        images = None
        if args.images:
            images = list(itertools.islice(read_images(args.images, config), args.count))
            images = command_line.progress(images, f'channel means of {len(images)} images')
        results = search_checkpoint(
            args.checkpoint,
            args.d_max,
            args.out,
            args.checkpoint_out,
            criterion=args.criterion,
            filter=args.filter,
            groups=args.groups,
            cfg=config,
            images=images,
            align=args.align,
        )
    Console().print(results_table(results))


if __name__ == '__main__':
    main()
