"""Train and test one network for all tasks on the miniature dataset, or one for each, and print one table.

Exit status: 0 if every threshold is reached, 1 if one is missed or a tool fails, 130 after Ctrl-C.

Examples:
  python tools/demo.py
  python tools/demo.py --tasks all detection instance semantic pose
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from icconv_mm.app.commands import command_line


def main(argv: Sequence[str] | None = None) -> int:
    parser = command_line.parser(__doc__)
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], default='cpu', metavar='DEVICE', help='cpu (default) or cuda'
    )
    work = Path('work_dirs/demo')
    parser.add_argument('--work-dir', type=Path, default=work, metavar='DIR', help='default: %(default)s')
    data = Path('data/miniature')
    parser.add_argument('--data', type=Path, default=data, metavar='DIR', help='drawn if missing; default: %(default)s')
    networks = 'some of: all (default: one network for all tasks), detection instance semantic pose (one for each)'
    parser.add_argument('--tasks', nargs='+', metavar='NAME', help=networks)
    backbones = 'a file of configs/_base_/backbones, without .py; default: %(default)s'
    parser.add_argument('--backbone', default='ic_resnet18', metavar='NAME', help=backbones)
    parser.add_argument('--neck', metavar='NAME', help='also train two detectors, one of them with this neck: sepc')
    parser.add_argument('--seed', type=int, metavar='N', default=0, help='of the trainings; default: %(default)s')
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # end the running tool as well
    debug = vars(args).pop('debug')
    options = {name: value for name, value in vars(args).items() if value is not None}
    with command_line.reporting(
        debug, interrupted=f'the dataset in {args.data} stays, the next call trains from the start'
    ):
        from icconv_tools.demo import DemoOptions, run_demo

        results = run_demo(DemoOptions(**options))
    return 0 if all(result.passed for result in results) else 1


if __name__ == '__main__':
    sys.exit(main())
