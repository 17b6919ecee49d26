"""Prints the tests that run a line: ``python tools/dev/where.py icconv_mm/models.py:120``.

It reads ``work_dirs/coverage/lines``, which ``make coverage`` writes with all fast tests, and for one's own tests
``python -m coverage run -m pytest tests/layers``, followed by ``python -m coverage combine --append``.
"""

import argparse
import sys
from pathlib import Path

from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('line', metavar='FILE:LINE', nargs='?', default='')
    file, _, number = parser.parse_args().line.rpartition(':')
    lines = ROOT / 'work_dirs' / 'coverage' / 'lines'
    if not (ROOT / file).is_file() or not number.isdigit():
        parser.error('name a file and a line of it: make where icconv_mm/models.py:120')
    if not lines.is_file():
        parser.error(f'{lines.relative_to(ROOT)} is missing: make coverage writes it and takes longer than make test')
    data = CoverageData(lines)
    data.read()
    runs = data.contexts_by_lineno(str(Path(file))).get(int(number), [])
    nowhere = 'at an import, or in a process that a test starts' if runs else 'no test runs this line'
    print('\n'.join(sorted(filter(None, runs))) or nowhere)
    return 0


if __name__ == '__main__':
    sys.exit(main())
