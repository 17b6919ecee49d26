import json

import pytest

from icconv_tools.evidence.experiment import Experiment
from icconv_tools.evidence.plots import stage_means
from icconv_tools.evidence.report import write_report
from icconv_tools.evidence.runs import BUDGETS

LAYERS = [
    {'layer': 'backbone.layer1.0.conv1', 'mean': [1.0, 2.0]},
    {'layer': 'backbone.layer2.0.conv1', 'mean': [3.0, 3.0]},
    {'layer': 'backbone.layer2.1.conv1', 'mean': [4.0, 4.0]},
]


@pytest.fixture
def experiment(tmp_path, pretended):
    experiment = Experiment(tmp_path, BUDGETS['quick'], range(3), ['search', 'head'])
    for run in experiment.runs():
        if run.arm.name.startswith('search') and (run.arm.name != 'search/analytic' or run.seed < 2):
            ap = {'search/dense': 10.0, 'search/searched': 12.0 + run.seed}.get(run.arm.name, 5.0) + 10 * run.seed
            pretended(run, {'box/AP': ap, 'box/AP_context': 1.0, 'box/AP_small': 3.0}, LAYERS)
    return experiment


def test_the_report_has_differences_and_costs(experiment, tmp_path, capsys):
    report = write_report(experiment)
    assert json.loads((tmp_path / 'quick/report.json').read_text()) == json.loads(json.dumps(report))
    search, head = report['comparisons']
    assert not head['rows'] and len(search['rows']) == 5
    rows = {row['arm']: row for row in search['rows']}
    found = rows['search/searched']['differences']['box/AP']
    assert list(found['values']) == [2.0, 3.0, 4.0] and found['mean'] == 3.0 and found['verdict'] == 'gain'
    assert (
        rows['search/analytic']['seeds'] == [0, 1] and rows['search/analytic']['differences']['box/AP']['low'] is None
    )
    assert not rows['search/dense']['differences']
    text = (tmp_path / 'quick/report.md').read_text()
    line = next(line for line in text.splitlines() if line.startswith('| searched'))
    assert '+3.00 [+2.00, +4.00]' in line and '250 k' in line and '| 80 |' in line
    assert (tmp_path / 'quick/differences.png').stat().st_size > 5000 and 'differences.png' in text
    assert 'searched' in capsys.readouterr().out


def test_dilations_by_planted_distance(experiment, tmp_path):
    report = write_report(experiment)
    assert {(each['arm'], tuple(each['distances'])) for each in report['searches']} == {
        ('search/supernet', (24,)),
        ('search-near/supernet', (12,)),
        ('search-middle/supernet', (18,)),
    }
    assert stage_means(LAYERS) == {'stage 1': 1.5, 'stage 2': 3.5}
    assert (tmp_path / 'quick/dilations.png').stat().st_size > 5000


def test_nothing_is_drawn_of_nothing(tmp_path, pretended):
    write_report(Experiment(tmp_path, BUDGETS['quick'], [0], ['head']))
    assert not list((tmp_path / 'quick').glob('*.png')) and (tmp_path / 'quick/report.md').read_text().startswith(
        '# Evidence'
    )
