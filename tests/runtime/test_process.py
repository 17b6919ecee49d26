"""What a command does around its work: output that cannot be written, names on a terminal, Ctrl-C at any time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
INTERRUPT = 'import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n'


def run(*words, shell='exec "$@"', **environment):
    """The ended process of ``python WORDS``, with its output; ``shell`` runs it as ``"$@"``."""
    path = os.pathsep.join(filter(None, [environment.pop('PYTHONPATH', ''), str(ROOT)]))
    # a background job of a shell ignores Ctrl-C, and so would its children
    start = 'import os, signal, sys; signal.signal(2, signal.default_int_handler); os.execvp(sys.argv[1], sys.argv[1:])'
    words = ['bash', '-c', f'set -o pipefail; {shell}', 'bash', sys.executable, *map(str, words)]
    settings = {**os.environ, 'PYTHONPATH': path, **environment}
    return subprocess.run([sys.executable, '-c', start, *words], capture_output=True, env=settings, timeout=60)


def program(lines, **options):
    """What a command of these lines leaves."""
    body = ''.join(f'    {line}\n' for line in lines.splitlines())
    return run(
        '-c',
        f'from icconv_mm_runtime import process\nprocess.begin_process()\nwith process.command():\n{body}',
        **options,
    )


@pytest.mark.parametrize('words', [['-m', 'icconv_mm', 'data', '.'], ['-m', 'icconv_mm_runtime'], ['tools/train.py']])
def test_an_interrupt_in_an_import_is_one_line(words, tmp_path):
    for name in ('mmengine', 'numpy'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(INTERRUPT)
    words = [str(ROOT / word) if word.endswith('.py') else word for word in words]
    ended = run(*words, PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (130, b'\ninterrupted\n')


@pytest.mark.parametrize('name', ['threading', 'typing', 'unicodedata', 'logging', 'argparse'])
def test_ctrl_c_is_heard_before_the_first_import_that_takes_long(name, tmp_path):
    """The package itself imports nothing, as it comes before the command."""
    (tmp_path / f'{name}.py').write_text(INTERRUPT)
    ended = run('-m', 'icconv_mm_runtime', PYTHONPATH=str(tmp_path))
    assert (ended.returncode, ended.stderr) == (130, b'\ninterrupted\n')
    code = 'import sys; known = set(sys.modules); import icconv_mm_runtime; print(*set(sys.modules) - known)'
    assert run('-c', code).stdout == b'icconv_mm_runtime\n'


@pytest.mark.parametrize(
    'lines',
    [
        INTERRUPT,
        f'try:\n    exec({INTERRUPT!r})\nexcept BaseException:\n    raise ImportError("of a compiled module")',
        'class A:\n    def __del__(self): raise KeyboardInterrupt\nA()\nimport time\ntime.sleep(5)',
    ],
    ids=['in Python', 'as an error of a library', 'ignored by Python'],
)
def test_whatever_ends_a_command_after_an_interrupt_is_the_interrupt(lines):
    ended = program(lines)
    assert (ended.returncode, ended.stderr) == (130, b'\ninterrupted\n')


def test_a_process_that_a_command_has_forked_ends_in_silence_at_an_interrupt():
    lines = f'child = Process(target=lambda: exec({INTERRUPT!r}))\nchild.start()\nchild.join()\nprint(child.exitcode)'
    ended = program(f'from multiprocessing import Process\n{lines}')
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b'0\n', b'')


def test_an_interrupt_after_the_end_changes_nothing():
    interrupt = INTERRUPT.replace('5', '0')
    ended = program(f'import atexit\natexit.register(lambda: exec({interrupt!r}))\nprint("done")')
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b'done\n', b'')


def test_an_error_without_an_interrupt_keeps_its_traceback():
    ended = program('raise ImportError("a bug")')
    assert ended.returncode == 1 and b'Traceback' in ended.stderr and b'a bug' in ended.stderr


@pytest.mark.parametrize(('encoding', 'shown'), [('ascii', rb'\xfc \u732b'), ('latin-1', b'\xfc \\u732b')])
def test_what_an_encoding_lacks_is_escaped(encoding, shown):
    ended = run('-m', 'icconv_mm', 'predict', 'ü 猫', 'images', '--out-dir', 'out', PYTHONIOENCODING=encoding)
    assert ended.returncode == 1 and b'no such file: ' + shown in ended.stderr


def test_names_of_files_are_utf8_in_any_locale():
    settings = dict(LC_ALL='C', PYTHONUTF8='0', PYTHONCOERCECLOCALE='0')
    ended = program('import sys\nprint("\\xfc", sys.getfilesystemencoding())', **settings)
    assert (ended.returncode, ended.stdout) == (0, rb'\xfc utf-8' + b'\n')


@pytest.mark.parametrize(
    ('redirection', 'status', 'error'),
    [('| head -c 1', 141, ''), ('>&-', 0, ''), ('>/dev/full', 1, 'error: the output: No space left on device\n')],
)
@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_an_output_that_cannot_be_written_does_not_end_the_work(redirection, status, error, unbuffered, tmp_path):
    lines = f'print("x" * 100_000)\nprint("y", flush=True)\nopen({str(tmp_path / "done")!r}, "w").close()'
    ended = program(lines, shell=f'"$@" {redirection}', PYTHONUNBUFFERED=unbuffered)
    assert (ended.returncode, ended.stderr.decode()) == (status, error) and (tmp_path / 'done').exists()


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_what_is_printed_comes_before_the_message_of_the_error(unbuffered):
    ended = program(
        'import sys\nprint("done: 1")\nsys.exit("error: 2")', shell='"$@" 2>&1', PYTHONUNBUFFERED=unbuffered
    )
    assert (ended.returncode, ended.stdout) == (1, b'done: 1\nerror: 2\n')


def test_a_name_sends_a_terminal_no_command():
    name = '\\x1b]0;owned\\x07\\x1b[31m'
    ended = program(
        f'import logging, warnings\nprint("{name}")\nlogging.warning("%s", "{name}")\nwarnings.warn("{name}")\n'
        f'raise OSError("{name}")'
    )
    assert b'\x1b' not in ended.stdout + ended.stderr and ended.stderr.count(rb'\x1b]0;owned\x07\x1b[31m') == 3
