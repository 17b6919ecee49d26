"""The command ``icconv``: how it starts, and words that it does not know."""

import os
import subprocess
import sys

import pytest

from icconv_mm import commands
from icconv_mm.patterns.search import CRITERIA

LIBRARIES = 'torch', 'numpy', 'cv2', 'mmengine', 'rich'


def python(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


@pytest.mark.parametrize(
    'words', [['--help'], ['--version'], *([name, '--help'] for name in commands.COMMANDS)], ids=str
)
def test_help_imports_no_library(words):
    done = python('-X', 'importtime', '-m', 'icconv_mm', *words)
    assert done.returncode == 0 and done.stdout
    modules = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines() if line.startswith('import time:')}
    assert 'icconv_mm.commands' in modules and not modules & {*LIBRARIES}


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['trian'], "argument COMMAND: invalid choice: 'trian'"),
        (
            ['train', 'data', '--epoch', '3'],
            'icconv train: error: unrecognized arguments: --epoch 3; did you mean --epochs?',
        ),
        (['train', 'data', '--epo'], 'icconv train: error: unrecognized arguments: --epo; did you mean --epochs?'),
        (['search', 'a.pth', '--out', 'a.json'], 'icconv search: error: --d-max is needed'),
        (['search', 'a.json', '--out', 'b.json'], 'icconv search: error: a .json of RFSearchHook needs --config'),
    ],
    ids=str,
)
def test_unknown_words(words, message, capsys):
    with pytest.raises(SystemExit, match='2'):
        commands.main(words)
    assert message in capsys.readouterr().err


def test_a_shell_completes_the_line():
    pytest.importorskip('argcomplete')
    line = 'icconv train --ep'
    asked = dict(_ARGCOMPLETE='1', _ARGCOMPLETE_IFS='\n', COMP_LINE=line, COMP_POINT=str(len(line)))
    words = ['sh', '-c', f'exec {sys.executable} -m icconv_mm 8>&1 9>/dev/null']  # the descriptors of argcomplete
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **asked})
    assert done.stdout.split() == ['--epochs']


def test_the_criteria_of_a_search():
    parsed = [
        commands.icconv_parser().parse_args(['search', 'a.pth', '--out', 'a.json', *words]).criterion
        for words in ([], *(['--criterion', name] for name in CRITERIA))
    ]
    assert parsed == [CRITERIA[0], *CRITERIA]
