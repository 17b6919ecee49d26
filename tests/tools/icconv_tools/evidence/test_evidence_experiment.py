"""The experiment of the runs, with a process in the place of a training that only notes that it ran."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from icconv_mm.errors import InputError
from icconv_mm.utils.files import alone_in
from icconv_tools.evidence.comparisons import LEARNING_RATES
from icconv_tools.evidence.experiment import FAILED, Experiment, budget_of, use_device
from icconv_tools.evidence.report import write_rates
from icconv_tools.evidence.runs import BUDGETS

QUICK = BUDGETS['quick']
SCRIPT = """
import json, pathlib, sys, time
root, fails, arm, seed = sys.argv[1:]
with open(f'{root}/begun', 'a') as file:
    file.write(f'{arm}/seed{seed}\\n')
if arm in fails.split():
    sys.exit('the last words')
time.sleep(0.2)
(pathlib.Path(root) / 'runs' / arm / f'seed{seed}' / 'result.json').write_text('{"tests": {"": {}}}')
"""


@pytest.fixture
def work(tmp_path, pretended):
    """Do what is left of some comparisons, and say which runs began and whether all are done."""

    def run(*names, seeds=(0, 1), workers=1, fails=''):
        (tmp_path / 'quick/begun').unlink(missing_ok=True)
        experiment = Experiment(tmp_path, QUICK, seeds, names)
        done = experiment.run_all([sys.executable, '-c', SCRIPT, str(experiment.root), fails], workers)
        begun = experiment.root / 'begun'
        return begun.read_text().split() if begun.exists() else [], done

    return run


@pytest.mark.parametrize('workers', [1, 2])
def test_all_runs_once_and_supernets_first(work, workers):
    begun, done = work('search', workers=workers)
    assert done and len(begun) == len(set(begun)) == 2 * 7
    for seed in (0, 1):
        assert begun.index(f'search/supernet/seed{seed}') < begun.index(f'search/searched/seed{seed}')
    assert work('search') == ([], True)


def test_comparisons_share_runs(work):
    assert len(work('fpt', seeds=(0,))[0]) == 5
    begun, _ = work('joint-boxes', 'joint-masks', 'joint-semantic', 'joint-pose', seeds=(0,))
    assert sorted(begun) == [f'joint/{name}/seed0' for name in ('boxes', 'joint', 'pose', 'semantic')]


def test_a_failure_costs_no_other_and_is_tried_again(work, tmp_path):
    begun, done = work('head', seeds=(0,), fails='head/psp')
    assert (begun, done) == (['head/psp/seed0', 'head/pyconv/seed0'], False)
    assert 'the last words' in (tmp_path / 'quick/runs/head/psp/seed0' / FAILED).read_text()
    assert work('head', seeds=(0,)) == (['head/psp/seed0'], True)
    assert not (tmp_path / 'quick/runs/head/psp/seed0' / FAILED).exists()


def test_what_needs_a_failed_supernet_is_left(work):
    begun, done = work('search', seeds=(0,), fails='search/supernet')
    assert not done and 'search/searched/seed0' not in begun and 'search/dense-long/seed0' in begun


def test_progress_says_what_is_left(work, capsys):
    work('head', seeds=(0, 1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '4 runs are left' and '1/4 head/psp/seed0' in lines[1] and 'minutes left' in lines[1]


def test_a_killed_course_goes_on(tmp_path, repo):
    """Of a experiment that was killed, what was finished stays, and the run that was interrupted is done anew."""
    script = (
        f'import sys\nsys.path.insert(0, {str(repo / "tools")!r})\n'
        'from pathlib import Path\n'
        'from icconv_tools.evidence.runs import BUDGETS, Run\n'
        'from icconv_tools.evidence.experiment import Experiment\n'
        'Run.result = lambda self: {} if self.result_file.is_file() else None\n'
        f'root = {str(tmp_path)!r}\n'
        'experiment = Experiment(Path(root), BUDGETS["quick"], (0, 1, 2), ["head"])\n'
        f'print(experiment.run_all([sys.executable, "-c", {SCRIPT!r}, str(experiment.root), ""], 1))\n'
    )
    command = [sys.executable, '-c', script]
    experiment = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    while len(list(tmp_path.rglob('result.json'))) < 2:
        assert experiment.poll() is None
        time.sleep(0.02)
    os.killpg(experiment.pid, signal.SIGKILL)
    experiment.wait()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('result.json')}
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1] == 'True'
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert len(list(tmp_path.rglob('result.json'))) == 6


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (([0], ['nothing']), '--comparisons: no comparison nothing; there are: search, search-pose'),
        (([], None), '--seeds: at least one is needed'),
    ],
)
def test_bad_input_is_refused_in_one_sentence(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        Experiment(tmp_path, QUICK, *arguments)


def test_unknown_budgets_and_missing_devices_are_refused(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(InputError, match='--budget: no budget huge; there are: cpu, gpu, quick'):
        budget_of('huge')
    assert budget_of(None).name == 'cpu'
    with pytest.raises(InputError, match='--device cuda: torch finds no CUDA device'):
        use_device('cuda')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    assert budget_of(None).name == 'gpu'


def test_learning_rates_are_tried_on_the_baseline_and_the_validation_split(tmp_path, pretended, capsys):
    experiment = Experiment(tmp_path, QUICK, [1000], ['head', 'fpt'], tune=True)
    runs = experiment.runs()
    assert {run.arm.name.partition('@')[0] for run in runs} == {'head/psp', 'fpt/fpn'} and len(runs) == 8
    assert {run.split for run in runs} == {'val'}
    assert runs[1].config().optim_wrapper.optimizer.lr == LEARNING_RATES[1]
    assert runs[1].settings() != runs[2].settings()
    pretended(runs[2], {'mIoU': 42.0})
    assert write_rates(experiment)[1] == ['head/psp', 'mIoU', '', '', '42.00 ± 0.00', '']
    assert json.loads((experiment.root / 'rates.json').read_text()) == {'head/psp': {f'{LEARNING_RATES[2]:g}': 42.0}}
    with pytest.raises(InputError, match='--tune takes seeds from 1000 on, got 0'):
        Experiment(tmp_path, QUICK, [0], tune=True)


def test_arms_of_causes_have_another_rate_and_length(tmp_path):
    experiment = Experiment(tmp_path, BUDGETS['cpu'], [1000])
    plain = experiment.run_of('search-pose/dense', 1000).config()
    changed = experiment.run_of('search-pose/dense@3e-3@x2.5', 1000)
    assert changed.folder.parent.name == 'dense@3e-3@x2.5'
    assert changed.config().optim_wrapper.optimizer.lr == 3e-3
    assert changed.config().train_cfg.max_iters == 2.5 * plain.train_cfg.max_iters
    assert changed.config('true tags').model.head.truth == 'tags'
    assert list(changed.arm.tests) == ['true tags', 'true heatmaps']
    assert not experiment.run_of('search-pose/dense@3e-3', 1000).arm.tests
    for name in ('head/psp@much', 'head/psp@x0', 'head/psp@-1', 'head/psp@', 'head/psp@xinf', 'head/pspp'):
        with pytest.raises(InputError, match=f'no arm {name}; there are: .*, and each as ARM@RATE, ARM@xLENGTH or'):
            experiment.run_of(name, 1000)


def test_what_is_compared_comes_first_seed_by_seed(tmp_path):
    names = [run.name for run in Experiment(tmp_path, QUICK, [0, 1], ['search', 'head']).runs()]
    seed0 = [f'search/{name}/seed0' for name in ('dense', 'analytic', 'supernet', 'searched')]
    assert names[:4] == seed0 and names[4:8] == [name.replace('seed0', 'seed1') for name in seed0]
    assert names[8:12] == [f'head/{name}/seed{seed}' for seed in (0, 1) for name in ('psp', 'pyconv')]
    assert sorted(names[12:]) == sorted(
        f'search{name}/seed{seed}' for name in ('/dense-long', '-near/supernet', '-middle/supernet') for seed in (0, 1)
    )


def test_a_run_is_done_by_one_process(tmp_path):
    experiment = Experiment(tmp_path, QUICK, [0], ['head'])
    busy = pytest.raises(InputError, match=r'evidence is at work in .*runs/head/psp/seed0; choose another')
    with alone_in(experiment.run_of('head/psp', 0).folder, 'a test is at work'), busy:
        experiment.run_one('head/psp', '0')
    with pytest.raises(InputError, match="--run: expected a seed, got 'x'"):
        experiment.run_one('head/psp', 'x')
