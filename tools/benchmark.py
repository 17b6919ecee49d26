"""Time what this package promises to be fast at, against its baselines, on this machine.

Contenders run in turn in one process, after a check that they give equal results; ratios are of medians.

Examples:
  python tools/benchmark.py --suite pose --threads 2
  python tools/benchmark.py --json benchmark.json
"""

import argparse
import sys

from icconv_mm import benchmark


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument('--suite', action='append', choices=benchmark.SUITES, help='may be repeated; default: all')
    parser.add_argument('--repeats', type=int, default=9, help='timed calls of each contender; default: %(default)s')
    parser.add_argument('--threads', type=int, help="threads of torch; default: torch's")
    parser.add_argument('--device', default='cpu', help='where networks run; default: %(default)s')
    parser.add_argument('--json', metavar='FILE', help='also write the figures to this file')
    parser.add_argument('--strict', action='store_true', help='exit with status 1 where a limit is missed')
    args = parser.parse_args(argv)
    if args.repeats < 1:
        parser.error(f'--repeats: expected 1 or more, got {args.repeats}')
    return args


def main(argv=None) -> int:
    args = parse_args(argv)
    options = benchmark.Options(repeats=args.repeats, threads=args.threads, device=args.device)
    try:
        figures = benchmark.run(args.suite or list(benchmark.SUITES), options)
    except (ImportError, benchmark.Disagreement) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    benchmark.print_figures(figures)
    if args.json:
        benchmark.write_json(figures, options, args.json)
    return int(args.strict and not all(figure.met for figure in figures))


if __name__ == '__main__':
    sys.exit(main())
