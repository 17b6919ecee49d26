"""Measure on a GPU everything that has a limit, most important first, and continue where the last call stopped.

Every figure is written to the file of results at once. What fails is noted and does not stop the rest. A dry run needs
no GPU: it does the same with tiny sizes, and its times mean nothing.

Examples:
  python tools/gpu_acceptance.py --out work_dirs/gpu.json                # nine minutes; again, until all is measured
  python tools/gpu_acceptance.py --out work_dirs/gpu.json --piece layers table
  python tools/gpu_acceptance.py --out work_dirs/dry.json --dry-run
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from icconv_mm.utils import command_line

UNFINISHED = 3


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        '--out', required=True, metavar='FILE.json', help='the file of results; continued if it is there'
    )
    names = 'ceilings, parity, layers, networks, pyconv, table, necks, pose, training'
    parser.add_argument('--piece', nargs='+', action='extend', metavar='NAME', help=f'default: all of {names}')
    parser.add_argument(
        '--minutes',
        type=float,
        default=9.0,
        help='no measurement begins that would not end within them; default: %(default)s',
    )
    parser.add_argument('--dry-run', action='store_true', help='on the CPU, with tiny sizes')
    parser.add_argument('--again', action='store_true', help='measure these pieces anew')
    parser.add_argument('--work', type=float, metavar='SECONDS', help=argparse.SUPPRESS)  # of a process that measures
    args = parser.parse_args(argv)
    args.given = sys.argv[1:] if argv is None else argv
    if not 0 < args.minutes <= 60:
        parser.error(f'--minutes: expected more than 0 and at most 60, got {args.minutes}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with command_line.reporting(args.debug, interrupted='what was measured is kept, the next call continues'):
        from icconv_tools.gpu_acceptance.bench import make_bench
        from icconv_tools.gpu_acceptance.measurements import chosen_pieces, measurements
        from icconv_tools.gpu_acceptance.worker import supervise, work

        pieces = chosen_pieces(args.piece)
        shown = shlex.join(['python', 'tools/gpu_acceptance.py', *args.given])
        bench = make_bench(Path(args.out), args.dry_run, shown)
        planned = list(measurements(pieces, bench))
        if args.work is not None:
            return work(planned, bench, args.work)
        if args.again:
            bench.results.forget({each.name for each in planned})
        command = [sys.executable, __file__, *(each for each in args.given if each != '--again'), '--work']
        done = supervise(command, bench.results, 60 * args.minutes)
        return report(bench.results.figures, [each.name for each in planned], done, bench.results.path)


def report(figures: dict[str, dict], planned: list[str], done: bool, path: Path) -> int:
    """Say what there is and what failed; 0 if all of it is measured."""
    found = [figures[name] for name in planned if name in figures]
    failed = sum('failed' in each for each in found)
    skipped = sum('skipped' in each for each in found)
    print(f'{path}: {len(found)} of {len(planned)} measured, {skipped} of them skipped, {failed} failed')
    if not done:
        print('the time is over; the same command continues')
        return UNFINISHED
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
