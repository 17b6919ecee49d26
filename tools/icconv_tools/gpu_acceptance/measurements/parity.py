"""The tests that need a GPU, a function at a time: ``pytest -m gpu``."""

import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from icconv_mm.versions import is_installed
from icconv_tools import HOME
from icconv_tools.gpu_acceptance.bench import Bench, Measurement
from icconv_tools.processes import Children

MARK = 'pytest.mark.gpu'
OPERATORS = HOME / 'tests/ops'
SECONDS = 150  # of one function with all its parameters


def measurements(bench: Bench) -> Iterator[Measurement]:
    found = list(functions())
    for test in found[:1] if bench.dry else found:  # without a GPU they skip, and each is a process
        yield Measurement(f'parity/{test.rpartition("/")[2]}', partial(_run, test), SECONDS)


def functions() -> Iterator[str]:
    """``file::function`` of every test for a GPU; files of the package's operators first.

    Named from the text of the files, because collecting them imports libraries that may not be there.
    """
    files = [path for path in (HOME / 'tests').rglob('test_*.py') if MARK in path.read_text()]
    for path in sorted(files, key=lambda path: (path.parent != OPERATORS, OPERATORS not in path.parents, path)):
        for line in path.read_text().splitlines():
            if line.startswith('def test_'):
                yield f'{path.relative_to(HOME)}::{line[4:].partition("(")[0]}'


def _run(test: str, bench: Bench) -> dict:
    report = bench.folder / 'parity.xml'
    report.unlink(missing_ok=True)
    options = ['-q', '-m', 'gpu', '-p', 'no:cacheprovider', f'--junitxml={report}']
    command = [sys.executable, '-m', 'pytest', *options, test]
    if not is_installed('mmengine'):  # which the fixtures of all tests need, those of the operators do not
        folder = OPERATORS if OPERATORS in (HOME / test).parents else (HOME / test).parent
        command.insert(3, f'--confcutdir={folder}')
    with Children() as children:
        ended = children.run(command, bench.folder / 'parity.log', SECONDS, cwd=HOME)
    return outcome(report) if report.is_file() else {'failed': f'pytest {ended}'}


def outcome(report: Path) -> dict:
    """Numbers of a JUnit report, and the messages of what failed and of what was skipped."""
    cases = list(ET.parse(report).getroot().iter('testcase'))
    messages = {kind: [] for kind in ('failure', 'error', 'skipped')}
    for case in cases:
        for kind, found in messages.items():
            found += [f'{case.get("name")}: {each.get("message")}'.splitlines()[0] for each in case.iter(kind)]
    wrong = messages['failure'] + messages['error']
    passed = len(cases) - len(wrong) - len(messages['skipped'])
    result = {'passed': passed, 'not run': len(messages['skipped']), 'wrong': wrong}
    if wrong:
        return {**result, 'failed': f'{len(wrong)} of {len(cases)} tests: {wrong[0]}'}
    reason = f': {messages["skipped"][0]}' if messages['skipped'] else ''
    return {**result, 'summary': f'{passed} passed, {len(messages["skipped"])} skipped{reason}'}
