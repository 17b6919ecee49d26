"""Runs that really train, two iterations each: ``--budget quick``."""

import json
import subprocess
import sys

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('mmpretrain')

from icconv_workshop.evidence.comparisons import COMPARISONS, arms_of
from icconv_workshop.evidence.runs import BUDGETS, Run
from icconv_workshop.evidence.training import perform


def check(run: Run) -> None:
    result = perform(run)
    written = json.loads(run.result_file.read_text())
    assert written == json.loads(json.dumps(result)) and written['iterations'] == 2
    assert set(written['tests']) == {'', *run.arm.tests}
    for row_of, metrics in ((comparison.rows, comparison.metrics) for comparison in COMPARISONS.values()):
        if run.arm.name in [row.arm for row in row_of]:
            assert all(0 <= written['tests'][''][metric] <= 100 for metric in metrics)
    assert written['costs']['parameters'] > 1e5 and written['costs']['flops'] > 1e7
    assert run.pattern_file().is_file() == run.arm.searches and not run.weights.exists()
    before = run.result_file.stat().st_mtime_ns
    perform(run)
    assert run.result_file.stat().st_mtime_ns == before  # it is not done again


@pytest.mark.slow
def test_a_search_gives_complete_results(tmp_path):
    """The supernet first, then the network of its pattern; arms share the drawn data."""
    for arm in arms_of(['search']):
        check(Run(arm, 0, BUDGETS['quick'], tmp_path))


@pytest.mark.slow
def test_the_command_continues_and_lists(repo, tmp_path):
    command = [sys.executable, str(repo / 'tools/dev/evidence.py'), '--work-dir', str(tmp_path), '--budget', 'quick']
    command += ['--device', 'cpu', '--comparisons', 'head', '--seeds', '0', '1', '2']
    first = subprocess.run([*command, '--workers', '2'], capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert '6 runs are left' in first.stdout and 'PyConvHead' in first.stdout
    assert all((tmp_path / 'quick' / name).is_file() for name in ('report.md', 'report_mixed.png'))
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert '0 runs are left' in again.stdout
    state = subprocess.run([*command, '--list'], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert state.splitlines()[-6:] == [f'done   head/{arm}/seed{s}' for s in range(3) for arm in ('psp', 'pyconv')]
