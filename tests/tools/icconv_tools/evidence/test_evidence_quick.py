"""Runs that really train, two iterations each: ``--budget quick``."""

import json
import subprocess
import sys

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpose')
pytest.importorskip('mmpretrain')

from icconv_tools.evidence.arms import ARMS
from icconv_tools.evidence.comparisons import COMPARISONS, arm_named, arms_of
from icconv_tools.evidence.runs import BUDGETS, Run
from icconv_tools.evidence.training import perform


def check(run: Run) -> None:
    result = perform(run)
    written = json.loads(run.result_file.read_text())
    assert written == json.loads(json.dumps(result)) and written['iterations'] == 2 and written['split'] == 'test'
    assert set(written['tests']) == {'', *run.arm.tests}
    for row_of, metrics in ((each.rows, each.metrics) for each in COMPARISONS.values()):
        if run.arm.name in [row.arm for row in row_of]:
            assert all(0 <= written['tests'][''][metric] <= 100 for metric in metrics)
    assert written['costs']['parameters'] > 1e5 and written['costs']['flops'] > 1e7
    assert bool(written['dilations']) == run.arm.searches and not run.weights.exists()
    before = run.result_file.stat().st_mtime_ns
    perform(run)
    assert run.result_file.stat().st_mtime_ns == before  # it is not done again


def test_a_run_gives_a_complete_result(tmp_path):
    check(Run(ARMS['joint/semantic'], 0, BUDGETS['quick'], tmp_path))


@pytest.mark.slow
def test_every_arm_gives_a_complete_result(tmp_path):
    """Each once; arms share the drawn data."""
    for arm in arms_of(list(COMPARISONS)):
        check(Run(arm, 0, BUDGETS['quick'], tmp_path))


@pytest.mark.slow
def test_an_arm_of_a_cause_is_tested_with_the_truth(tmp_path):
    result = perform(Run(arm_named('search-pose/dense@x2'), 0, BUDGETS['quick'], tmp_path))
    assert set(result['tests']) == {'', 'true tags', 'true heatmaps'}
    assert result['tests']['true heatmaps']['pose/AP'] > result['tests']['']['pose/AP']


@pytest.mark.slow
def test_the_command_continues_and_lists(repo, tmp_path):
    command = [sys.executable, str(repo / 'tools/evidence.py'), '--work-dir', str(tmp_path), '--budget', 'quick']
    command += ['--device', 'cpu', '--comparisons', 'head', '--seeds', '0', '1', '2']
    first = subprocess.run([*command, '--workers', '2'], capture_output=True, text=True, cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    assert '6 runs are left' in first.stdout and 'PyConvHead' in first.stdout
    assert (tmp_path / 'quick/report.md').is_file() and (tmp_path / 'quick/differences.png').is_file()
    again = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert '0 runs are left' in again.stdout
    state = subprocess.run([*command, '--list'], capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    assert state.splitlines()[-6:] == [f'done   head/{arm}/seed{s}' for s in range(3) for arm in ('psp', 'pyconv')]
