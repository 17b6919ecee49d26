"""Every paper's claim tried in miniature, with seeds: train all arms, compare, write tables.

It goes on where it was interrupted: every run leaves one JSON file. docs/evidence.md says what is compared, and how.

Examples:
  python tools/dev/evidence.py --work-dir work_dirs/evidence                       # all; hours on two cores
  python tools/dev/evidence.py --work-dir work_dirs/evidence --comparisons search sepc --workers 2
  python tools/dev/evidence.py --work-dir work_dirs/quick --budget quick --seeds 0 1
  python tools/dev/evidence.py --work-dir work_dirs/evidence --report              # tables of what is there
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from icconv_mm.app.commands import command_line


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='default: %(default)s'
    )
    parser.add_argument(
        '--comparisons',
        nargs='+',
        action='extend',
        metavar='NAME',
        help='those of docs/evidence.md; default: all whose images are there',
    )
    parser.add_argument('--seeds', type=int, nargs='+', metavar='N', default=list(range(5)), help='default: 0 1 2 3 4')
    parser.add_argument('--budget', metavar='NAME', help='cpu, gpu or quick; default: what the device is')
    parser.add_argument(
        '--device',
        choices=['auto', 'cpu', 'cuda'],
        default='auto',
        metavar='DEVICE',
        help='cpu, cuda or auto (default: a GPU if there is one)',
    )
    parser.add_argument(
        '--workers', type=int, metavar='N', default=1, help='runs at once, each with one thread; default: %(default)s'
    )
    parser.add_argument('--report', action='store_true', help='run nothing; tables of what is there')
    parser.add_argument('--list', action='store_true', help='run nothing; say which runs are done and which are left')
    parser.add_argument('--run', nargs=2, metavar=('ARM', 'SEED'), help='one run alone, in this process')
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f'--workers: expected 1 or more, got {args.workers}')
    return args


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    with command_line.reporting(args.debug, interrupted='what is finished is kept, the same command goes on'):
        from icconv_workshop.evidence.experiment import Experiment, budget_of, use_device

        use_device(args.device)
        experiment = Experiment(args.work_dir, budget_of(args.budget), args.seeds, args.comparisons)
        if args.run:
            experiment.run_one(*args.run)
            return 0
        if args.list:
            experiment.print_state()
            return 0
        complete = args.report or experiment.run_all([sys.executable, __file__, *_passed_on(args)], args.workers)
        from icconv_workshop.evidence.report import write_report

        write_report(experiment)
    return 0 if complete else 1


def _passed_on(args: argparse.Namespace) -> list[str]:
    """What a worker is told."""
    device = ['--device', args.device]
    return ['--work-dir', str(args.work_dir), *device, *(['--budget', args.budget] if args.budget else []), '--run']


if __name__ == '__main__':
    sys.exit(main())
