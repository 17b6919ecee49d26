"""The command ``icconv``: how it starts, and words that it does not know."""

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

import icconv_mm
from icconv_mm.app import commands
from icconv_mm.app.commands.command_line import find_files
from icconv_mm.patterns.search import CRITERIA

LIBRARIES = 'torch', 'numpy', 'cv2', 'mmengine', 'rich'


@pytest.mark.parametrize(
    'words', [['--help'], ['--version'], *([name, '--help'] for name in commands.COMMANDS)], ids=str
)
def test_help_imports_no_library(words):
    command = [sys.executable, '-X', 'importtime', '-m', 'icconv_mm', *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout
    modules = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines() if line.startswith('import time:')}
    assert 'icconv_mm.app.commands' in modules and not modules & {*LIBRARIES}


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['trian'], "argument COMMAND: invalid choice: 'trian'"),
        (['trian'], '; did you mean train?'),
        (
            ['train', 'data', '--epoch', '3'],
            'icconv train: error: unrecognized arguments: --epoch 3; did you mean --epochs?',
        ),
        (['train', 'data', '--epo'], 'icconv train: error: unrecognized arguments: --epo; did you mean --epochs?'),
        (['predict', 'a', 'b', '--outdir', 'c'], 'unrecognized arguments: --outdir; did you mean --out-dir?\n'),
        (['predict', 'a', 'b', '-out-dir', 'c'], 'unrecognized arguments: -out-dir; did you mean --out-dir?\n'),
        (['predict', 'a', 'b', '--score-thr', '-1'], 'the following arguments are required: --out-dir'),
        (['export', 'a', '--output=c'], 'unrecognized arguments: --output=c; did you mean --out?\n'),
        (['--verson'], 'unrecognized arguments: --verson; did you mean --version?\n'),
        (['search', 'a.pth', '--out', 'a.json'], 'icconv search: error: --d-max is needed'),
        (['search', 'a.json', '--out', 'b.json'], 'icconv search: error: a .json of RFSearchHook needs --config'),
    ],
    ids=str,
)
def test_unknown_words(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a.pth', 'a.json'):
        (tmp_path / name).touch()
    with pytest.raises(SystemExit, match='2'):
        commands.main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['predict', 'a', '0', '--out-dir', 'out'], r'^error: checkpoint: no such file: a \(in '),
        (['predict', '.', '0', '--out-dir', 'out'], r'^error: checkpoint: none \(\*\.pth\) in the folder \.'),
        (['predict', 'a.onnx', 'b.jpg', '--out-dir', 'out'], r'^error: input: no such file or folder: b\.jpg \(in '),
        (['predict', 'a.onnx', '0', '--out-dir', 'a.onnx'], r'^error: --out-dir: a\.onnx is a file, not a folder'),
        (['train', 'a.onnx', 'b'], r'^error: data: no such file or folder: b \(in '),
        (['train', '.', '--pretrained', 'b.pth'], r'^error: --pretrained: no such file: b\.pth \(in '),
        (['export', 'a.onnx', '--int8', 'b'], r'^error: --int8: no such file or folder: b \(in '),
        (['train', 'b.py'], r'^error: config: no such file: b\.py \(in '),
        (['data', 'b'], r'^error: data: no such file or folder: b \(in '),
    ],
    ids=str,
)
def test_files_that_are_not_there_are_told_before_the_libraries_are_imported(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.onnx').touch()
    monkeypatch.setattr('icconv_mm.extend_mmengine', pytest.fail)
    with pytest.raises(SystemExit, match=message):
        commands.main(words)


def test_names_that_are_no_files(tmp_path):
    for pretrained in ('none', 'auto', 'torchvision://resnet18'):
        find_files(Namespace(debug=False, config=[str(tmp_path)], pretrained=pretrained))
    find_files(Namespace(debug=False, inputs='*.jpg', checkpoint='https://host/a.pth', images='images/*'))
    find_files(Namespace(debug=False, inputs='rtsp://host/camera', config=None))


def test_an_interrupted_training_is_resumed_within_its_time(tmp_path, monkeypatch, capsys):
    pytest.importorskip('mmdet')
    (tmp_path / 'iter_3.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_3.pth'))

    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr('icconv_mm.app.training.train.train', interrupted)
    config = str(Path(icconv_mm.__file__).parents[1] / 'configs/detection/faster-rcnn_ic-r18_fpn_miniature.py')
    with pytest.raises(SystemExit, match='130'):
        commands.main(['train', config, '--time', '10m', '--work-dir', str(tmp_path)])
    assert '--time 10m --resume` goes on from there' in capsys.readouterr().err


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
