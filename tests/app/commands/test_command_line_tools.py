"""What all tools have in common on the command line."""

import runpy
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from icconv_mm.app.commands.command_line import reporting
from icconv_mm.errors import ArgumentError, InputError, naming

TOOLS = sorted((Path(__file__).parents[3] / 'tools').glob('*.py'))


@pytest.fixture(params=TOOLS, ids=lambda path: path.stem)
def main(request):
    return runpy.run_path(str(request.param), run_name=request.param.stem)['main']


def test_help_loads_no_network():
    """What takes long to import waits until the options have been read."""
    code = '\n'.join(
        [
            'import runpy, sys',
            'for path in sys.argv[1:]:',
            '    try:',
            '        runpy.run_path(path, run_name="tool")["main"](["--help"])',
            '    except SystemExit:',
            '        pass',
            'print(*sorted({"icconv_mm.backbones", "icconv_mm.ops", "mmengine.runner"} & set(sys.modules)), "loaded")',
        ]
    )
    done = subprocess.run([sys.executable, '-c', code, *TOOLS], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == 'loaded'


def test_options_are_written_in_full(main, capsys):
    """A shortened option is no option, so that a new one never changes what an old command means."""
    with pytest.raises(SystemExit, match='2'):
        main(['--hel'])
    assert 'usage' in capsys.readouterr().err


def in_config(error: ArgumentError) -> ArgumentError:
    with suppress(ArgumentError), naming('c.py'):
        raise error
    return error


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (ArgumentError('batch_size', 'expected 1 or more, got 0'), '--batch-size: expected 1 or more, got 0'),
        (ArgumentError('ann_file', 'a_b.json: no image'), '--ann-file: a_b.json: no image'),
        (ArgumentError('options', 'model.depht: no such key'), '--cfg-options: model.depht: no such key'),
        (in_config(ArgumentError('out', 'expected a name')), 'c.py: out: expected a name'),  # of a part of a config
        (InputError('checkpoint: no such file: a_b.pth'), 'checkpoint: no such file: a_b.pth'),  # no option
    ],
    ids=str,
)
def test_tools_name_the_option_where_the_library_names_its_argument(error, said):
    with pytest.raises(SystemExit) as end, reporting(after='Nothing was written.'):
        raise error
    assert str(end.value) == f'error: {said}\nNothing was written.'
