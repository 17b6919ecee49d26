"""Time what this package does against its baselines, on this machine.

Contenders run in turn in one process, after a check that they give equal results; ratios are of medians. Networks and
layers are timed in both memory formats, and each contender's better one counts.

Examples:
  python tools/dev/benchmark.py --suite layers backbone --threads 2
  python tools/dev/benchmark.py --suite backbone --only "IC-R50-k9 1x3x800x1088" --out benchmarks.json
  python tools/dev/benchmark.py --suite backbone --device cuda
"""

import argparse
import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from icconv_mm.app.commands import command_line
from icconv_mm.errors import InputError
from icconv_workshop import benchmark
from icconv_workshop.benchmark.report import print_figures, write_figures


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    parser.add_argument('--suite', nargs='+', action='extend', choices=benchmark.SUITES, help='default: all')
    parser.add_argument(
        '--only',
        default='',
        metavar='NAME',
        help='figures with this in their name',
    )
    parser.add_argument('--repeats', type=int, metavar='N', default=9, help='timed calls of each; default: %(default)s')
    parser.add_argument('--threads', type=int, metavar='N', help="threads of torch; default: torch's")
    parser.add_argument('--device', default='cpu', metavar='DEVICE', help='where networks run; default: %(default)s')
    parser.add_argument(
        '--dtype',
        choices=('float32', 'bfloat16', 'float16'),
        help='of layers, backbone, models; default: float32 on the CPU, else bfloat16',
    )
    parser.add_argument(
        '--scale',
        type=float,
        metavar='FACTOR',
        default=1.0,
        help='of the sizes of images: a quick look, without limits',
    )
    parser.add_argument(
        '--cpu-time',
        action='store_true',
        help="count the processor's time, on a machine that does other things, too; with --threads 1 on the CPU",
    )
    parser.add_argument('--out', metavar='FILE.json', help='also write the figures, machine, versions and command')
    parser.add_argument(
        '--strict',
        action='store_true',
        help='exit with status 1 where a limit is missed',
    )
    args = parser.parse_args(argv)
    args.given = sys.argv[1:] if argv is None else argv
    if args.repeats < 1:
        parser.error(f'--repeats: expected 1 or more, got {args.repeats}')
    if not 0 < args.scale <= 1:
        parser.error(f'--scale: expected more than 0 and at most 1, got {args.scale}')
    if args.cpu_time and (args.threads != 1 or args.device != 'cpu'):
        parser.error(f'--cpu-time: expected --threads 1 and --device cpu, got {args.threads} and {args.device}')
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:  # the latter: this torch was built without it
        parser.error(f'--device: {args.device} cannot be used: {str(error).splitlines()[0]}')
    if args.out and (Path(args.out).is_dir() or not Path(args.out).parent.is_dir()):  # else found out at the end
        parser.error(f'--out: expected a file in an existing folder, got {args.out}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    names = ('repeats', 'threads', 'device', 'dtype', 'scale', 'only', 'cpu_time')
    options = benchmark.Options(**{name: getattr(args, name) for name in names})
    logging.basicConfig(format='%(asctime)s %(message)s', datefmt='%H:%M:%S')
    logging.getLogger('icconv_workshop.benchmark').setLevel(logging.INFO)
    figures = []
    with command_line.reporting(args.debug):
        try:
            whole = [name for name in benchmark.SUITES if name != 'reading' or args.device == 'cpu']
            for figure in benchmark.run(args.suite or whole, options):
                figures.append(figure)
        finally:  # what is measured is reported, whatever comes later
            if figures:
                report(figures, options, args)
        if not figures:
            raise InputError(f'no figures; --only {args.only!r} selects nothing')
    return int(args.strict and not all(figure.met for figure in figures))


def report(figures: list[benchmark.Figure], options: benchmark.Options, args: argparse.Namespace) -> None:
    """Table, and the files that were asked for."""
    print_figures(figures, options.device)
    if args.out:
        command = shlex.join(['python', 'tools/dev/benchmark.py', *args.given])
        write_figures(figures, options, args.out, command)


if __name__ == '__main__':
    sys.exit(main())
