"""What all tools have in common on the command line."""

import runpy
from pathlib import Path

import pytest

TOOLS = sorted((Path(__file__).parents[2] / 'tools').glob('*.py'))


@pytest.fixture(params=TOOLS, ids=lambda path: path.stem)
def main(request):
    return runpy.run_path(str(request.param), run_name=request.param.stem)['main']


def test_help_names_debug(main, capsys):
    with pytest.raises(SystemExit, match='0'):
        main(['--help'])
    assert '--debug' in capsys.readouterr().out


def test_options_are_written_in_full(main, capsys):
    """A shortened option is no option, so that a new one never changes what an old command means."""
    with pytest.raises(SystemExit, match='2'):
        main(['--hel'])
    assert 'usage' in capsys.readouterr().err
