import json

import compare_networks
import pytest
from pretended_tools import DRAWING, GOOD, pretend, use_home

from icconv_mm.datasets.miniature import ensure_miniature


@pytest.fixture
def call(tmp_path, repo, monkeypatch):
    """Runs the script with tools that only pretend; gives the raw file."""
    ensure_miniature(tmp_path / 'data', DRAWING)
    use_home(monkeypatch, pretend(tmp_path / 'home', repo))
    monkeypatch.setattr('icconv_tools.demo.pipeline.ensure_miniature', lambda *_: False)

    def run(*seeds):
        out = tmp_path / 'it.json'
        folders = ['--work-dir', str(tmp_path / 'work'), '--data', str(tmp_path / 'data')]
        compare_networks.main(['--seeds', *seeds, *folders, '--out', str(out)])
        return json.loads(out.read_text())

    return run


def test_every_seed_is_trained_once(call, tmp_path, capsys):
    """A second call takes what is there, and trains the seeds that are not."""
    assert len(call('4')['figures']) == 10
    (tmp_path / 'home/tools/metrics.json').write_text(json.dumps(GOOD | {'mIoU': 62.5}))
    raw = call('4', '5')
    assert set(raw) == {'date', 'command', 'machine', 'versions', 'options', 'figures'}
    assert len(raw['figures']) == 20
    values = {(each['seed'], each['network']): each['value'] for each in raw['figures'] if each['metric'] == 'mIoU'}
    assert values == {(4, 'joint'): 0.725, (4, 'semantic'): 0.725, (5, 'joint'): 0.625, (5, 'semantic'): 0.625}
    printed = capsys.readouterr().out
    assert '| mIoU | 0.675 (0.625 to 0.725) | 0.675 (0.625 to 0.725) | +0.000 |' in printed
    assert '| OKS AP50, 3 scales | 0.450 (0.450 to 0.450) |' in printed and '| seconds | ' in printed


def test_what_was_stopped_goes_on(call, tmp_path):
    call('4')
    (tmp_path / 'work/seed4/pose/results.json').unlink()
    (tmp_path / 'home/tools/metrics.json').write_text(json.dumps(GOOD | {'mIoU': 62.5}))
    values = {each['network']: each['value'] for each in call('4')['figures'] if each['metric'] == 'mIoU'}
    assert values == {'joint': 0.725, 'semantic': 0.625}  # one network stays, the four start again together
