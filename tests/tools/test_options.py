"""What all tools have in common on the command line."""

import argparse
import re
import runpy
import subprocess
import sys
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest

from icconv_mm.errors import ArgumentError, InputError, MissingArgumentFileError, naming
from icconv_mm.utils.command_line import reporting
from icconv_mm.versions import installed

TOOLS = sorted((Path(__file__).parents[2] / 'tools').glob('*.py'))


def load(path: Path):
    return runpy.run_path(str(path), run_name=path.stem)['main']


@pytest.fixture(params=TOOLS, ids=lambda path: path.stem)
def main(request):
    return load(request.param)


@pytest.fixture(scope='module')
def parsers():
    """The parser of each tool, by the tool's name."""
    found = {}

    def parse_args(parser, args=None):
        found[path.stem] = parser
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
        for path in TOOLS:
            with pytest.raises(SystemExit):
                load(path)([])
    return found


def kind(option: argparse.Action) -> tuple:
    """What an option takes: ``FILE.json`` and ``FILE.png``, ``NAME`` and ``NAME,...``, text and path are of a kind."""
    name = option.metavar or ''  # several values may have a name each
    value = name if isinstance(name, tuple) else re.split('[.,]', name)[0] or tuple(option.choices or ())
    return value, None if option.type is Path else option.type, option.nargs, type(option)


def test_help_names_debug_and_has_examples(main, capsys):
    with pytest.raises(SystemExit, match='0'):
        main(['--help'])
    text = capsys.readouterr().out
    assert '--debug' in text
    assert len(re.findall(r'^Examples:\n  python tools/', text, re.MULTILINE)) == 1 and 'Example:' not in text


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
    tools = [path for path in TOOLS if path.stem != 'benchmark']  # its options are those of its suites
    done = subprocess.run([sys.executable, '-c', code, *tools], capture_output=True, text=True, check=True)
    forks = (installed('mmengine') or ('',))[0].startswith('onedl')  # their reader of checkpoints is replaced at once
    assert done.stdout.splitlines()[-1] == ('mmengine.runner loaded' if forks else 'loaded')


def test_options_are_written_in_full(main, capsys):
    """A shortened option is no option, so that a new one never changes what an old command means."""
    with pytest.raises(SystemExit, match='2'):
        main(['--hel'])
    assert 'usage' in capsys.readouterr().err


def test_one_name_has_one_meaning(parsers):
    kinds = defaultdict(lambda: defaultdict(list))
    for tool, parser in parsers.items():
        for option in parser._actions:
            for name in option.option_strings if option.help != argparse.SUPPRESS else ():
                kinds[name][kind(option)].append(tool)
    assert len(kinds['--debug'][kind(parsers['train']._option_string_actions['--debug'])]) == len(TOOLS)
    assert {name: dict(tools) for name, tools in kinds.items() if len(tools) > 1} == {}


@pytest.mark.parametrize(
    ('tool', 'arguments', 'old', 'new', 'value'),
    [
        ('benchmark', [], '--picture', '--chart', 'it.png'),
        ('download_patterns', [], '--source', '--from', 'folder'),
        ('search_pattern', ['a.pth', '--d-max', '2', '--out', 'a.json'], '--max-images', '--count', '7'),
        ('search_pattern', ['a.pth', '--d-max', '2', '--out', 'a.json'], '--layers', '--filter', 'layer1'),
        ('search_pipeline', [], '--limit', '--count', '7'),
        ('show_pattern', ['dense'], '--images', '--count', '7'),
    ],
)
def test_old_names_work_and_say_the_new_one(parsers, tool, arguments, old, new, value, capsys):
    expected = parsers[tool].parse_args([*arguments, new, value])
    assert expected != parsers[tool].parse_args(arguments)
    assert capsys.readouterr().err == ''
    assert parsers[tool].parse_args([*arguments, old, value]) == expected
    assert capsys.readouterr().err == f'{old} is {new} now; the next version is without the old name\n'
    assert f'{old} ' not in parsers[tool].format_help()


def test_several_names_are_given_at_once_or_one_by_one(parsers):
    parse = parsers['benchmark'].parse_args
    assert parse(['--suite', 'pose', '--suite', 'sepc']).suite == parse(['--suite', 'pose', 'sepc']).suite
    parse = parsers['gpu_acceptance'].parse_args
    assert parse(['--out', 'a', '--piece', 'pose', '--piece', 'table', 'necks']).piece == ['pose', 'table', 'necks']


def in_config(error: ArgumentError) -> ArgumentError:
    with suppress(ArgumentError), naming('c.py'):
        raise error
    return error


@pytest.mark.parametrize(
    ('error', 'said'),
    [
        (ArgumentError('batch_size', 'expected 1 or more, got 0'), '--batch-size: expected 1 or more, got 0'),
        (ArgumentError('ann_file', 'a_b.json: no image'), '--ann-file: a_b.json: no image'),
        (MissingArgumentFileError('resume', 'no such file: a'), '--resume: no such file: a'),
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


@pytest.mark.slow
def test_the_former_name_of_a_config_is_said(repo):
    """By mmengine, with a kind of warning that Python hides unless told."""
    pytest.importorskip('mmdet')
    former = 'configs/detection/faster-rcnn_pyconv-hg-r50_fpn_1x_coco.py'
    command = [sys.executable, 'tools/train.py', former, '--cfg-options', 'no_such_key=1']
    run = subprocess.run(command, cwd=repo, capture_output=True, text=True)
    assert run.returncode == 1 and 'Please use faster-rcnn_pyconv-hgr50_fpn_1x_coco.py instead' in run.stderr
