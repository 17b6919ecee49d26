"""The script, on one tiny layer."""

import importlib
import json
import os
from datetime import datetime, timedelta, timezone

import mmengine
import pytest
import torch

from icconv_mm import __version__
from icconv_tools import benchmark


@pytest.fixture
def main():
    return importlib.import_module('benchmark').main


def test_writes_table_file_and_chart(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    arguments = ['--suite', 'layers', '--scale', '0.02', '--repeats', '1', '--strict', '--only'] + ['layer 14 forward']
    assert main([*arguments, '--out', str(tmp_path / 'it.json'), '--chart', str(tmp_path / 'it.png')]) == 0
    assert 'layer 14' in capsys.readouterr().out
    content = json.loads((tmp_path / 'it.json').read_text())
    assert content['options']['scale'] == 0.02
    assert content['command'].startswith('python tools/benchmark.py --suite layers --scale 0.02 --repeats 1')
    assert "'layer 14 forward'" in content['command']  # quoted as a shell needs it
    assert f'{torch.get_num_threads()} of {os.cpu_count()} threads' in content['machine']
    assert content['versions']['torch'] == torch.__version__ and content['versions']['icconv_mm'] == __version__
    assert content['versions']['mmengine'] == mmengine.__version__
    assert abs(datetime.now(timezone.utc) - datetime.fromisoformat(content['date'])) < timedelta(hours=1)
    assert [row['name'] for row in content['figures']] == [
        'layer 14 forward: ours / dense',
        'layer 14 forward: ours / composition',
    ]
    for row in content['figures']:
        assert row['ratio'] == row['subject']['median'] / row['baseline']['median']
        assert 0 < row['subject']['minimum'] <= row['subject']['median']
    assert (tmp_path / 'it.png').stat().st_size > 1000


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--repeats', '0'], '--repeats: expected 1 or more, got 0'),
        (['--scale', '0'], '--scale: expected more than 0 and at most 1, got 0.0'),
        (['--device', 'gpu'], '--device: gpu cannot be used: '),
        pytest.param(
            ['--device', 'cuda'],
            '--device: cuda cannot be used: ',
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason='there is one'),
        ),
        (['--suite', 'ops'], "invalid choice: 'ops'"),
        (['--cpu-time'], '--cpu-time: expected --threads 1 and --device cpu, got None and cpu'),
        (['--out', '.'], '--out: expected a file in an existing folder, got .'),
        (['--chart', 'none/it.png'], '--chart: expected a file in an existing folder, got none/it.png'),
    ],
)
def test_bad_arguments_are_refused_by_name(main, capsys, arguments, message):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_selection_without_figures_is_an_error(main, tmp_path):
    arguments = ['--suite', 'layers', '--only', 'no such layer', '--chart', str(tmp_path / 'it.png')]
    with pytest.raises(SystemExit, match="error: no figures; --only 'no such layer' selects nothing"):
        main(arguments)


@pytest.mark.parametrize(
    ('problem', 'message'),
    [(benchmark.Disagreement('the second differs'), 'error: the second differs'), (KeyboardInterrupt(), '130')],
)
def test_what_was_measured_before_a_problem_is_reported(main, tmp_path, monkeypatch, capsys, problem, message):
    time = benchmark.Timing(1.0, 1.0, 1)

    def run(names, options):
        yield benchmark.Figure('layers', 'the first', time, time)
        raise problem

    monkeypatch.setattr(benchmark, 'run', run)
    with pytest.raises(SystemExit, match=message):
        main(['--out', str(tmp_path / 'it.json')])
    assert 'the first' in capsys.readouterr().out
    assert len(json.loads((tmp_path / 'it.json').read_text())['figures']) == 1


@pytest.mark.parametrize(
    ('seconds', 'limit', 'accepted', 'verdict', 'status'),
    [
        (0.9, None, None, '', 0),
        (0.9, 0.9, None, '0.900 kept', 0),
        (0.95, 0.9, None, '0.900 MISSED', 1),
        (0.95, 0.9, 1.0, '0.900 MISSED, accepted to 1.000', 0),
        (1.05, 0.9, 1.0, '0.900 MISSED, accepted to 1.000', 1),
    ],
)
def test_strict_takes_what_is_accepted_in_the_place_of_a_limit(
    main, monkeypatch, seconds, limit, accepted, verdict, status
):
    ours, theirs = (benchmark.Timing(each, each, 1) for each in (seconds, 1.0))
    figure = benchmark.Figure('backbone', 'it', ours, theirs, limit, accepted=accepted)
    assert figure.verdict == verdict
    monkeypatch.setattr(benchmark, 'run', lambda names, options: iter([figure]))
    assert main(['--suite', 'backbone', '--strict']) == status
    assert main(['--suite', 'backbone']) == 0
