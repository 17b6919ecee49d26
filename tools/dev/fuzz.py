"""Runs tests/attacks in rounds of other random cases until the time is over, the last fifth under the sanitizers.

The folder keeps Hypothesis' examples (a failing case is tried first in the next run), the input of each test when its
process ended (after a failure the smallest one that fails), the output of rounds that failed, and report.json.
"""

import argparse
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import icconv_workshop  # noqa: F401 - finds icconv_tools
from icconv_tools.processes import Children

REPO = Path(__file__).resolve().parents[2]
OPERATORS = 'tests/attacks/test_attack_operators.py'
SANITIZE = [str(REPO / 'tools/dev/sanitize.sh'), str(Path(sys.executable).parent)]
HANG_SECONDS = 1200  # of a round; a whole one takes minutes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=30)
    parser.add_argument('--cases', type=int, default=300, help='of each test in a round')
    parser.add_argument('--folder', type=Path, default=REPO / 'work_dirs/fuzz')
    parser.add_argument('--no-sanitizers', action='store_true')
    args = parser.parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'counts.txt').unlink(missing_ok=True)
    start, rounds, failures = time.monotonic(), Counter(), []
    next_seed = folder / 'next_seed'  # where the last run stopped
    seed = int(next_seed.read_text()) if next_seed.exists() else 0
    while (share := (time.monotonic() - start) / 60 / args.minutes) < 1:
        sanitized = share > 0.8 and not args.no_sanitizers
        if sanitized and not any(name.startswith('sanitized') for name in rounds):
            _build_with_sanitizers(folder)
        outcome, output = _round(seed, args.cases, folder, sanitized)
        rounds[f'{"sanitized " * sanitized}{outcome}'] += 1
        if outcome != 'passed':
            path = folder / f'failed_{seed}.txt'
            path.write_text(output)
            failures.append(dict(seed=seed, outcome=outcome, output=str(path), sanitized=sanitized))
        print(f'{share:4.0%} seed {seed}{" (sanitizers)" * sanitized}: {outcome}', flush=True)
        seed += 1
        next_seed.write_text(str(seed))
    report = dict(
        command=f'tools/dev/fuzz.py --minutes {args.minutes:g} --cases {args.cases}',
        minutes=round((time.monotonic() - start) / 60, 1),
        rounds=dict(rounds),
        cases=_cases(folder),
        failures=failures,
    )
    (folder / 'report.json').write_text(json.dumps(report, indent=1) + '\n')
    print(f'{sum(report["cases"].values())} cases, {len(failures)} rounds failed: {folder}/report.json')
    sys.exit(bool(failures))


def _build_with_sanitizers(folder: Path) -> None:
    """It is no part of a round: on a busy machine its minutes would look like a test that hangs."""
    command = [*SANITIZE, '--collect-only', '-q']
    with Children() as children:
        ended = children.run(command, folder / 'build.txt', cwd=REPO, env={'SANITIZE_TESTS': OPERATORS})
    if ended.status:
        sys.exit(f'the build with sanitizers {ended}; all of it is in {folder}/build.txt')


def _round(seed: int, cases: int, folder: Path, sanitized: bool) -> tuple[str, str]:
    """One run of the tests: 'passed', 'failed', 'crashed' or 'hung', and what it printed."""
    env = {'ICCONV_MM_FUZZ_CASES': str(cases), 'ICCONV_MM_FUZZ_FOLDER': str(folder), 'SANITIZE_TESTS': OPERATORS}
    command = SANITIZE if sanitized else [sys.executable, '-X', 'faulthandler', '-m', 'pytest', 'tests/attacks']
    options = [f'--hypothesis-seed={seed}', '-q', '-p', 'no:cacheprovider']
    log = folder / 'round.txt'
    with Children() as children:
        ended = children.run([*command, *options], log, HANG_SECONDS, cwd=REPO, env=env)
    output = log.read_text(errors='replace')
    if ended.status is None:
        return 'hung', output
    if ended.status == 0:
        return 'passed', output
    return ('failed' if re.search(r'\d+ failed', output) else 'crashed'), output


def _cases(folder: Path) -> dict[str, int]:
    """How many inputs each test was given."""
    counts: Counter = Counter()
    path = folder / 'counts.txt'
    for line in path.read_text().splitlines() if path.exists() else ():
        name, count = line.rsplit(' ', 1)
        counts[name] += int(count)
    return dict(counts)


if __name__ == '__main__':
    main()
