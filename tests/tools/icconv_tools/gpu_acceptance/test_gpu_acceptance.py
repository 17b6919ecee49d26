"""What is measured on a GPU, on the CPU: every measurement with tiny sizes, and all that can go wrong between them."""

import importlib
import json
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from half import half_on_cpu

from icconv_mm.errors import InputError, UserError
from icconv_mm.ops.dispatch.kernel_table import Measured, load
from icconv_tools.gpu_acceptance import measurements, timing, worker
from icconv_tools.gpu_acceptance.bench import DRY, ON_GPU, Bench, Measurement, against
from icconv_tools.gpu_acceptance.measurements import parity, training
from icconv_tools.gpu_acceptance.measurements.table import write_table
from icconv_tools.gpu_acceptance.results import ResultsFile

ORIGIN = {'machine': 'this one', 'versions': {'torch': '2'}, 'options': {}, 'source': 'abc'}


@pytest.fixture
def bench(tmp_path) -> Bench:
    return Bench(DRY, tmp_path, ResultsFile(tmp_path / 'it.json', ORIGIN, 'the command'))


@pytest.fixture
def main():
    return importlib.import_module('gpu_acceptance').main


def run(main, capsys, *arguments) -> str:
    """The sentence with which a call ends."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return str(end.value.code) + capsys.readouterr().err


# --- the file of results


def test_a_figure_is_on_disk_at_once_and_once(bench):
    bench.results.begin('a/b')
    assert json.loads(bench.results.path.read_text())['running'] == 'a/b'
    bench.results.put('a/b', {'failed': 'at first'})
    bench.results.put('a/b', {'value': 1})
    content = json.loads(bench.results.path.read_text())
    assert content['figures'] == [{'name': 'a/b', 'value': 1}] and content['running'] is None
    again = ResultsFile(bench.results.path, ORIGIN, 'another command')
    assert again.figures == {'a/b': {'name': 'a/b', 'value': 1}}
    again.forget({'a/b'})
    assert ResultsFile(bench.results.path, ORIGIN, '').figures == {}
    assert {'date', 'command', 'machine', 'versions', 'options', 'figures'} <= set(content)


def test_a_file_that_is_cut_short_is_not_left_behind(bench, monkeypatch):
    bench.results.put('a/b', {'value': 1})
    before = bench.results.path.read_text()
    monkeypatch.setattr('pathlib.Path.replace', lambda *_: (_ for _ in ()).throw(OSError('the power is gone')))
    with pytest.raises(InputError, match=r'it\.json: the power is gone'):
        bench.results.put('a/c', {'value': 2})
    assert bench.results.path.read_text() == before and before.endswith('}\n')
    assert list(bench.results.path.parent.iterdir()) == [bench.results.path]


@pytest.mark.parametrize('name', ORIGIN)
def test_figures_of_two_machines_or_versions_do_not_mix(bench, name):
    with pytest.raises(InputError, match=f'it.json: its figures were measured with {name} .* give another --out'):
        ResultsFile(bench.results.path, {**ORIGIN, name: 'other'}, '')


@pytest.mark.parametrize('text', ['', '{}', '[1]', '{"figures": []}'])
def test_another_file_is_no_file_of_results(tmp_path, text):
    (tmp_path / 'it.json').write_text(text)
    with pytest.raises(InputError, match=r'it\.json: no file of results of this tool'):
        ResultsFile(tmp_path / 'it.json', ORIGIN, '')


# --- the tool


def test_errors_are_sentences(main, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    out = tmp_path / 'it.json'
    assert 'error: torch finds no CUDA device; --dry-run does all this' in run(main, capsys, '--out', out)
    assert 'no piece gpu; there are: ceilings, parity' in run(main, capsys, '--out', out, '--piece', 'gpu', '--dry-run')
    nowhere = tmp_path / 'none/it.json'
    assert 'expected a file in an existing folder' in run(main, capsys, '--out', nowhere, '--dry-run')
    assert '--minutes: expected more than 0' in run(main, capsys, '--out', out, '--minutes', 0)
    assert not list(tmp_path.iterdir())


def test_help_lists_the_pieces(main, capsys):
    with pytest.raises(SystemExit):
        main(['--help'])
    assert ', '.join(measurements.PIECES) in ' '.join(capsys.readouterr().out.split())


def test_a_folder_that_cannot_be_written_is_an_error(main, capsys, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied', str(tmp_path))

    monkeypatch.setattr('tempfile.mkstemp', refuse)
    assert 'error: ' in (said := run(main, capsys, '--out', tmp_path / 'it.json', '--dry-run')) and 'denied' in said


@pytest.mark.skipif(not half_on_cpu(), reason='this torch has no product of float16 on the CPU')
def test_a_piece_is_measured_continued_and_measured_again(main, tmp_path, capfd):
    arguments = ['--out', str(tmp_path / 'it.json'), '--dry-run', '--piece', 'ceilings']
    assert main(arguments) == 0
    said, _ = capfd.readouterr()
    names = ['matmul bfloat16', 'matmul float16', 'matmul float32', 'copy', 'overhead']
    assert [f'ceilings/{name}' in said for name in names] == [True] * 5 and '5 of 5 measured, 0 of them' in said
    content = json.loads((tmp_path / 'it.json').read_text())
    assert content['command'] == f'python tools/gpu_acceptance.py {" ".join(arguments)}'
    first = {figure['name']: figure for figure in content['figures']}
    assert first['ceilings/matmul float32']['TFLOP/s'] > 0 and len(first['ceilings/overhead']['figures']) == 9
    assert main(arguments) == 0 and 'matmul' not in capfd.readouterr().out  # nothing is left to do
    assert main([*arguments, '--again']) == 0 and 'ceilings/matmul bfloat16' in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize('part', [(0, 4), (4, 6), (6, 8), (8, 9)], ids=str)
def test_dry_run(main, tmp_path, monkeypatch, part):
    """Every measurement of every piece; none fails, and none is skipped but for what this environment lacks."""
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    part = measurements.PIECES[slice(*part)]
    options = [word for name in part for word in ('--piece', name)]
    assert main(['--out', str(tmp_path / 'it.json'), '--dry-run', *options]) == 0
    figures = json.loads((tmp_path / 'it.json').read_text())['figures']
    assert {figure['name'].split('/')[0] for figure in figures} == set(part)
    skipped = [figure['skipped'] for figure in figures if 'skipped' in figure]
    assert not [reason for reason in skipped if 'not installed here' not in reason and 'no table' not in reason]


# --- working through measurements


def measured(name: str, run=lambda bench: {'value': 1}, **settings) -> Measurement:
    return Measurement(name, run, **settings)


def test_what_is_there_is_not_measured_again(bench):
    bench.results.put('a/1', {'value': 7})
    assert worker.work([measured('a/1'), measured('a/2')], bench, 60) == worker.DONE
    assert [figure['value'] for figure in bench.results.figures.values()] == [7, 1]
    assert bench.results.figures['a/2']['seconds'] >= 0


def test_what_does_not_fit_the_time_is_not_begun(bench):
    on_gpu = Bench(ON_GPU, bench.folder, bench.results)
    plan = [measured('a/1', seconds=5), measured('a/2', seconds=100), measured('a/3', seconds=1)]
    assert worker.work(plan, on_gpu, 60) == worker.NO_TIME
    assert list(bench.results.figures) == ['a/1'] and bench.results.running is None


def test_a_fault_is_noted_and_asks_for_a_new_process(bench, capsys):
    def fault(bench):
        raise RuntimeError('CUDA error: an illegal memory access\nwas encountered')

    def disagree(bench):
        raise UserError('they disagree')

    plan = [measured('a/1', disagree), measured('a/2', fault), measured('a/3')]
    assert worker.work(plan, bench, 60) == worker.FRESH
    assert {name: figure['failed'] for name, figure in bench.results.figures.items()} == {
        'a/1': 'they disagree',
        'a/2': 'RuntimeError: CUDA error: an illegal memory access',
    }
    assert 'a/1: FAILED: they disagree' in capsys.readouterr().out
    assert worker.work(plan, bench, 60) == worker.DONE and 'value' in bench.results.figures['a/3']


def test_what_needs_a_library_that_is_not_there_is_skipped(bench):
    assert worker.work([measured('a/1', needs=('torch', 'no_such'))], bench, 60) == worker.DONE
    assert bench.results.figures['a/1']['skipped'] == 'skipped: it needs no_such, not installed here'


# A process that begins the next of three measurements and then does as it is told by the name of that one.
PROCESS = """
import faulthandler, json, os, signal, sys, time
path, names = sys.argv[1], ['a/fine', 'a/crash', 'a/hang', 'a/last']
content = json.load(open(path))
for name in names[len(content['figures']):]:
    content['running'] = name
    json.dump(content, open(path, 'w'))
    if name == 'a/crash':
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == 'a/hang':
        faulthandler.dump_traceback_later(0.2, exit=True)
        time.sleep(60)
    content['figures'].append({'name': name})
    content['running'] = None
    json.dump(content, open(path, 'w'))
"""


def test_processes_that_die_cost_one_figure_each(bench):
    command = [sys.executable, '-c', PROCESS, str(bench.results.path)]
    assert worker.supervise(command, bench.results, 60)
    found = {name: figure.get('failed') for name, figure in bench.results.figures.items()}
    assert list(found) == ['a/fine', 'a/crash', 'a/hang', 'a/last'] and found['a/fine'] is found['a/last'] is None
    assert found['a/crash'].startswith('its process was ended by SIGSEGV')
    assert found['a/hang'].startswith('its process took too long')


def test_a_process_that_does_not_start_is_an_error(bench):
    with pytest.raises(UserError, match='the measuring process ended with status 1: ValueError: so'):
        worker.supervise([sys.executable, '-c', 'raise ValueError("so")'], bench.results, 60)


def test_the_end_of_the_time_ends_the_process(bench, monkeypatch):
    monkeypatch.setattr(worker, 'GRACE', 0)
    begun = time.monotonic()
    with pytest.raises(UserError, match='took too long'):
        worker.supervise([sys.executable, '-c', 'import time; time.sleep(60)'], bench.results, 0.5)
    assert time.monotonic() - begun < 30


def test_results_are_one_line():
    times = {'ours': {'wall': 12.0, 'GPU': 11.0}, 'dense': {'wall': 10.0, 'GPU': 10.0}}
    compared = against(times, 'ours', 'dense', {'wall': 1.15, 'GPU': 1.15})
    assert compared['ratios'] == {'wall': 1.2, 'GPU': 1.1}
    said = worker.shown({'comparisons': [compared]})
    assert said == 'ours / dense wall 1.20 (limit 1.15 MISSED), ours / dense GPU 1.10 (limit 1.15 kept)'


# --- parity and training


def test_every_test_for_a_gpu_has_a_slice(repo):
    found = list(parity.functions())
    assert found[0].startswith('tests/ops/') and len(found) == len(set(found)) > 15
    assert 'tests/ops/test_inception_conv_cuda.py::test_captured_in_a_graph' in found


REPORT = """<testsuites><testsuite>
<testcase name="test_a[1]"/><testcase name="test_a[2]"><skipped message="no GPU"/></testcase>{}
</testsuite></testsuites>"""


def test_outcome_of_tests(tmp_path):
    (tmp_path / 'good.xml').write_text(REPORT.format(''))
    good = parity.outcome(tmp_path / 'good.xml')
    assert good['passed'] == 1 and good['summary'] == '1 passed, 1 skipped: test_a[2]: no GPU' and 'failed' not in good
    (tmp_path / 'bad.xml').write_text(REPORT.format('<testcase name="test_b"><failure message="it is 2"/></testcase>'))
    bad = parity.outcome(tmp_path / 'bad.xml')
    assert bad['passed'] == 1 and bad['failed'] == '1 of 3 tests: test_b: it is 2'


def test_a_tool_that_fails_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r'tools/train\.py ended with status 1: error: .*nothing\.py'):
        training._tool(tmp_path, 'train', 'nothing.py')


# --- the table of kernels


def test_writing_a_table_again_replaces_the_same_class(tmp_path):
    def entry(pixels, **microseconds):
        return Measured('inception_conv2d', '9.0', 'bfloat16', 64, 64, 1, 1, pixels, microseconds)

    path = tmp_path / 'table.json'
    write_table([entry(8000, kn2row=1.0, tiled=2.0), entry(1000, kn2row=1.0, tiled=2.0)], path, 'first.json')
    write_table([entry(1000, tiled=1.0, hybrid=0.5)], path, 'second.json')
    found = [(each.pixels, each.kernel, each.source) for each in load(path)]
    assert found == [(1000, 'hybrid', 'second.json'), (8000, 'kn2row', 'first.json')]
    with pytest.raises(InputError, match=r"entry 2: .*'dense'"):
        write_table([entry(9000, dense=1.0)], path, '')


# --- the clock


class FakeCuda(SimpleNamespace):
    """As much of ``torch.cuda`` as the clock asks for; notes what it was asked."""

    def __init__(self):
        self.asked, self.now, self.current = [], 0.0, SimpleNamespace(wait_stream=lambda other: None)
        super().__init__()

    def synchronize(self):
        self.asked.append('synchronize')

    def current_stream(self):
        return self.current

    def Stream(self):
        return SimpleNamespace(wait_stream=lambda other: self.asked.append('side waits'))

    def stream(self, stream):
        return torch.no_grad()

    def CUDAGraph(self):
        return SimpleNamespace(replay=lambda: self.asked.append('replay'))

    def graph(self, graph):
        self.asked.append('capture')
        return torch.no_grad()

    def Event(self, enable_timing):
        event = SimpleNamespace(at=None, synchronize=lambda: self.asked.append('event'))

        def record():
            self.now += 2.0
            event.at = self.now

        event.record = record
        event.elapsed_time = lambda other: other.at - event.at
        return event


def test_time_of_the_gpu_is_that_of_a_graph(monkeypatch):
    cuda, calls = FakeCuda(), []
    monkeypatch.setattr(torch, 'cuda', cuda)
    times = timing.measure({'it': lambda: calls.append(1)}, timing.CUDAClock(), repeats=2, calls=5)
    assert len(calls) == 1 + 3 + 5 + 2  # plans, warm-up on the side, capture, two eager calls
    assert cuda.asked[:2] == ['side waits', 'capture'] and cuda.asked.count('replay') == 2
    assert times['it']['GPU'] == 2e-3 / 5 * 1e6  # events are in milliseconds
    assert 0 <= times['it']['processor'] <= times['it']['wall']


def test_what_cannot_be_captured_is_called(monkeypatch):
    cuda, calls = FakeCuda(), []
    monkeypatch.setattr(torch, 'cuda', cuda)
    timing.measure({'it': lambda: calls.append(1)}, timing.CUDAClock(), repeats=2, calls=5, eager=['it'])
    assert 'capture' not in cuda.asked and len(calls) == 1 + 2 * (1 + 5)


def test_kernels_that_compute_something_else_are_not_timed():
    from icconv_tools.gpu_acceptance.kernels import REFERENCE, agreeing

    def refuse():
        raise RuntimeError('it takes other channels\nand more')

    calls = {REFERENCE: lambda: torch.ones(3), 'right': lambda: torch.ones(3), 'wrong': lambda: torch.zeros(3)}
    good, refused = agreeing({**calls, 'refuses': refuse}, 1e-3)
    assert list(good) == [REFERENCE, 'right'] and refused['refuses'] == 'it takes other channels'
    assert refused['wrong'].startswith('wrong: result 0 is off by 1.0e+00')
