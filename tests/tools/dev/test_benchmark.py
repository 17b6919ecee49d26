"""The script, on one tiny layer."""

import importlib
import json
import os
from datetime import datetime, timedelta, timezone

import mmengine
import pytest
import torch

from icconv_mm import __version__
from icconv_workshop import benchmark


@pytest.fixture
def main():
    return importlib.import_module('benchmark').main


def test_writes_table_and_file(main, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    arguments = ['--suite', 'layers', '--scale', '0.02', '--repeats', '1', '--strict', '--only'] + ['layer 14 forward']
    assert main([*arguments, '--out', str(tmp_path / 'it.json')]) == 0
    assert 'layer 14' in capsys.readouterr().out
    content = json.loads((tmp_path / 'it.json').read_text())
    assert content['options']['scale'] == 0.02
    assert content['command'].startswith('python tools/dev/benchmark.py --suite layers --scale 0.02 --repeats 1')
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


@pytest.mark.parametrize(
    ('seconds', 'limit', 'verdict', 'status'),
    [
        (0.9, None, '', 0),
        (0.9, 0.9, '0.900 kept', 0),
        (0.95, 0.9, '0.900 MISSED', 1),
    ],
)
def test_strict_fails_where_a_limit_is_missed(main, monkeypatch, seconds, limit, verdict, status):
    ours, theirs = (benchmark.Timing(time, time, 1) for time in (seconds, 1.0))
    figure = benchmark.Figure('backbone', 'it', ours, theirs, limit)
    assert figure.verdict == verdict
    monkeypatch.setattr(benchmark, 'run', lambda names, options: iter([figure]))
    assert main(['--suite', 'backbone', '--strict']) == status
    assert main(['--suite', 'backbone']) == 0
