"""Train one network for all tasks, and one for each, with several seeds; print a table of what they reach.

What has been trained and tested stays in the work folder: called again, the script goes on where it was stopped.

Examples:
  python scripts/compare_networks.py --seeds 1 2 3 --out docs/measurements/NAME.json
"""

import argparse
import shlex
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPO), str(REPO / 'tools')]

from icconv_mm.utils.files import write_json  # noqa: E402
from icconv_mm.utils.tables import markdown  # noqa: E402
from icconv_tools.demo import DemoOptions, earlier_results, run_demo  # noqa: E402
from icconv_tools.demo.report import Result  # noqa: E402
from icconv_tools.demo.tasks import MULTITASK, SEPARATE  # noqa: E402
from icconv_tools.origin import circumstances  # noqa: E402


def measured(seed: int, options: argparse.Namespace) -> list[Result]:
    """The results of a seed, of both kinds of networks; trains and tests those that are not there yet."""
    results = []
    for networks in ((MULTITASK,), SEPARATE):
        folder = options.work_dir / f'seed{seed}'
        names = tuple(network.name for network in networks)
        demo = DemoOptions(work_dir=folder, data=options.data, tasks=names, seed=seed, device=options.device)
        known = [earlier_results(folder / name, demo) for name in names]
        results += [each for own in known for each in own] if all(known) else run_demo(demo)
    return results


def rows_of(results: dict[int, Sequence[Result]]) -> list[tuple[str, ...]]:
    """Means over the seeds with least and greatest, titles first."""
    values = defaultdict(list)
    for own in results.values():
        seconds = defaultdict(float)
        for each in own:
            kind = 'one' if each.network == MULTITASK.name else 'four'
            values[kind, each.metric + (', 3 scales' if each.threshold is None else '')].append(each.value)
            seconds[kind] += each.seconds or 0
        for kind, total in seconds.items():
            values[kind, 'seconds'].append(total)
    rows = [('metric', 'one network', 'four networks', 'difference')]
    for metric in dict.fromkeys(metric for _, metric in values):
        one, four = values['one', metric], values['four', metric]
        digits = 0 if metric == 'seconds' else 3
        difference = sum(one) / len(one) - sum(four) / len(four)
        rows.append((metric, _spread(one, digits), _spread(four, digits), f'{difference:+.{digits}f}'))
    return rows


def _spread(values: Sequence[float], digits: int) -> str:
    mean = sum(values) / len(values)
    return f'{mean:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})'


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seeds', type=int, nargs='+', default=[1, 2, 3], help='default: 1 2 3')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/compare'), help='default: %(default)s')
    parser.add_argument('--data', type=Path, default=Path('data/miniature'), help='default: %(default)s')
    parser.add_argument('--device', default='cpu', help='cpu (default) or cuda')
    parser.add_argument('--out', type=Path, help='a JSON file for all figures, written after each seed')
    options = parser.parse_args(argv)
    command = f'python scripts/compare_networks.py {shlex.join(sys.argv[1:] if argv is None else argv)}'.strip()
    results: dict[int, list[Result]] = {}
    for seed in options.seeds:
        results[seed] = measured(seed, options)
        if options.out:
            figures = [{'seed': seed, **asdict(each)} for seed, own in results.items() for each in own]
            content = {
                **circumstances(command, options.device),
                'options': {'seeds': options.seeds},
                'figures': figures,
            }
            write_json(options.out, content, indent=1)
        print(markdown(rows_of(results)), flush=True)


if __name__ == '__main__':
    main()
