"""Search the dilation pattern of a trained supernet (EDO), or read the one that RF-Next found.

The supernet is ICResNet(..., supernet_d_max=D) or any network through icconv_mm.layers.to_supernet.

Examples:
  icconv search supernet.pth --d-max 4 --out pattern.json --checkpoint-out ic_init.pth
  icconv search local_search_config_step11.json --config config.py --out pattern.json   # RF-Next
"""

import itertools
from argparse import ArgumentParser, Namespace

from icconv_mm.app.commands import command_line


def add_arguments(parser: ArgumentParser, is_tool: bool = False) -> None:
    """Adds the arguments."""
    parser.add_argument('checkpoint', help="weights of the supernet; or a .json that mmcv's RFSearchHook has written")
    parser.add_argument('--d-max', type=int, help='the largest dilation of a supernet; kernels are 2 * D_MAX + 1')
    parser.add_argument('--out', required=True, metavar='FILE.json', help='the pattern file to write')
    parser.add_argument(
        '--checkpoint-out', metavar='FILE.pth', help='also write an initial checkpoint that inherits the kept taps'
    )
    criteria = 'rms', 'expectation', 'kept_mass'  # those of patterns.search, which imports torch
    parser.add_argument('--criterion', choices=criteria, default=criteria[0], help='default: %(default)s')
    parser.add_argument('--filter', metavar='REGEX', help='which layers; default: all kernels above 3x3 but the stem')
    parser.add_argument('--groups', type=int, default=1, help='groups of these convolutions, unless --config tells')
    parser.add_argument('--align', type=int, metavar='N', help='multiples of N channels for each dilation, such as 32')
    parser.add_argument('--config', help='config of the network; needed for --images, and for a .json')
    parser.add_argument('--images', metavar='DIR', help='measure the channel means on the images of this folder')
    parser.add_argument(
        '--count', type=int, default=300, metavar='N', help='at most so many of them; default: %(default)s'
    )
    parser.set_defaults(refuse=parser.error)


def run(args: Namespace) -> None:
    """Searches or reads the pattern, and prints it by layer."""
    if args.images and not args.config:
        args.refuse('--images needs --config: channel means are measured in the network')
    (_convert_rf_next if args.checkpoint.endswith('.json') else _search)(args)
    print(f'pattern: {args.out}')
    if args.checkpoint_out:
        print(f'initial checkpoint with the kept taps: {args.checkpoint_out}')


def _convert_rf_next(args: Namespace) -> None:
    if not args.config:
        args.refuse('a .json of RFSearchHook needs --config: it names layers of that network')
    for option in ('d_max', 'checkpoint_out', 'images', 'align'):
        if getattr(args, option) is not None:
            args.refuse(f'--{option.replace("_", "-")} is of a supernet, not of a .json of RFSearchHook')
    with command_line.reporting(args.debug, after='Nothing was written.'):
        from icconv_mm.app.commands.tables import console, table
        from icconv_mm.app.training.search import convert_rf_next

        patterns = convert_rf_next(args.checkpoint, args.config, args.out, args.filter)
    rows = [(name, str(layer.out_channels), str(tuple(layer.entries[0][1:]))) for name, layer in patterns.items()]
    console().print(table('Dilations per layer', [('layer', 'channels', '(h, w)'), *rows], {'layer'}))


def _search(args: Namespace) -> None:
    if args.d_max is None:
        args.refuse('--d-max is needed: the largest dilation that the supernet was built with')
    with command_line.reporting(args.debug, after='Nothing was written.'):
        from icconv_mm.app.commands.tables import console, results_table
        from icconv_mm.app.runs.begin import load_config
        from icconv_mm.app.training.search import read_images, search_checkpoint

        config = load_config(args.config) if args.config else None
        images = None
        if args.images:
            images = list(itertools.islice(read_images(args.images, config), args.count))
            images = command_line.progress(images, f'channel means of {len(images)} images')
        searched = search_checkpoint(
            args.checkpoint,
            args.d_max,
            criterion=args.criterion,
            filter=args.filter,
            groups=args.groups,
            network=config,
            images=images,
            align=args.align,
        )
        searched.write(args.out, args.checkpoint_out)
    console().print(results_table(searched.results))
