"""The process of a command: its output, its interrupts and its end. Uses the standard library only."""

import _thread
import atexit
import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

from icconv_mm_runtime import interrupts
from icconv_mm_runtime.errors import printable

_INTERRUPTED = 130  # the status of shells for a command that Ctrl-C ends
_PIPE_CLOSED = 141  # and for one whose reader has ended, as in `icconv data FOLDER | head`
_WAIT = 2  # seconds for loading processes, which Ctrl-C ends as well
_STYLE = re.compile(r'(\x1b\[[0-9;?]*[A-Za-z])')  # of progress bars and coloured logs
_process = SimpleNamespace(pid=None, is_interrupted=False, is_told=False)  # what `begin_process` prepared


def begin_process() -> None:
    """Prepares the process of a command, before the imports that take seconds.

    Output keeps every character: what the encoding lacks is printable. A closed or full output does not end the work.
    Logs, warnings and tracebacks show control characters of names as escapes. Ctrl-C raises KeyboardInterrupt in this
    process alone, wherever it is pressed, and whatever ends the process then is an interrupt: one line, status 130.
    """
    if _process.pid or threading.current_thread() is not threading.main_thread():
        return
    if sys.getfilesystemencoding() != 'utf-8' and os.environ.get('PYTHONUTF8') != '1':
        _restart_in_utf8()
    _process.pid = os.getpid()
    interrupts.await_interrupts()
    if signal.getsignal(signal.SIGINT) is interrupts.end_process:
        signal.signal(signal.SIGINT, _interrupt)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the last one that is called
    sys.excepthook, sys.unraisablehook, threading.excepthook = (
        _quiet(hook) for hook in (sys.excepthook, sys.unraisablehook, threading.excepthook)
    )
    _open_outputs()
    import logging  # takes most of what this module's import would, before Ctrl-C is heard

    factory, show = logging.getLogRecordFactory(), warnings.formatwarning
    logging.setLogRecordFactory(lambda *args, **options: _printable_record(factory(*args, **options)))
    warnings.formatwarning = lambda *args, **options: printable(show(*args, **options), '\n\t')


@contextlib.contextmanager
def ending(interrupted: str = '') -> Iterator[None]:
    """Ends the process with one line and status 130 if Ctrl-C ends the block, by whatever exception.

    Args:
        interrupted: What the line says after the word 'interrupted'.
    """
    try:
        yield
    except Exception:
        if not is_interrupted():
            raise
        _end_interrupted(interrupted)
    except KeyboardInterrupt:
        _end_interrupted(interrupted)


@contextlib.contextmanager
def command() -> Iterator[None]:
    """Runs the block as a whole command: :func:`ending`, and the status says if the output could not be written."""
    try:
        with ending():
            yield
    except BaseException as error:  # SystemExit as well, whose message is printed after what the command has printed
        sys.stdout.flush()
        if isinstance(error, SystemExit) and not error.code:
            _check_outputs()
        raise
    _finish()
    _check_outputs()


def _check_outputs() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        buffer = getattr(stream, 'buffer', None)
        if error := getattr(getattr(buffer, 'raw', buffer), 'error', None):
            sys.exit(_PIPE_CLOSED if error.errno == errno.EPIPE else f'error: the output: {os.strerror(error.errno)}')


def is_interrupted() -> bool:
    """Returns whether Ctrl-C was pressed since :func:`begin_process`."""
    return _process.is_interrupted


def _end_interrupted(what: str = '') -> NoReturn:
    if not _process.is_told:
        _process.is_told = _process.pid is not None
        print(f'\ninterrupted; {what}'.rstrip('; '), file=sys.stderr)
    _finish()
    if processes := sys.modules.get('multiprocessing'):  # else they are killed at once, and leave temporary folders
        latest = time.monotonic() + _WAIT
        for process in processes.active_children():
            process.join(max(0, latest - time.monotonic()))
    raise SystemExit(_INTERRUPTED) from None


def _finish() -> None:
    """Lets the exit of a process that is done go on; Ctrl-C twice ends it."""
    if _process.pid and signal.getsignal(signal.SIGINT) is _interrupt:
        signal.signal(signal.SIGINT, lambda *_: signal.signal(signal.SIGINT, signal.SIG_DFL) and None)


def _interrupt(*_: Any) -> NoReturn:
    if os.getpid() != _process.pid:
        raise SystemExit(0)  # a loading process: the one that started it says what happened
    _process.is_interrupted = True
    raise KeyboardInterrupt


def _quiet(hook: Any) -> Any:
    """Returns a hook of exceptions that no code catches, which says nothing of those that Ctrl-C causes."""

    def call(*args: Any) -> None:
        kind = getattr(args[0], 'exc_type', args[0])
        if not is_interrupted() and not issubclass(kind, KeyboardInterrupt):
            hook(*args)
        elif len(args) > 1:  # of the main thread, which ends
            _end_interrupted()
        elif os.getpid() == _process.pid and issubclass(kind, KeyboardInterrupt) and not _process.is_told:
            threading.Timer(0.1, _thread.interrupt_main).start()  # here it would be ignored

    return call


def _restart_in_utf8() -> None:
    """Starts the command again with names of files in UTF-8, as they are on the disk, whatever the locale says."""
    encoding = os.environ.get('PYTHONIOENCODING') or getattr(sys.stdout or sys.stderr, 'encoding', 'utf-8')
    os.environ |= {'PYTHONUTF8': '1', 'PYTHONIOENCODING': encoding}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


class _Output(io.FileIO):
    """The file of an output that keeps its first error, as of a closed pipe or a full disk, and drops the rest."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return super().write(data)
            except OSError as error:
                self.error = error
        return len(data)


class _Text(io.TextIOWrapper):
    """The text of an output: control characters are escaped, but for colours and moves of the cursor on a terminal."""

    mode = 'w'

    def write(self, text: str) -> int:
        if text.isprintable():
            return super().write(text)
        is_terminal = self.isatty() or 'FORCE_COLOR' in os.environ
        parts = _STYLE.split(text) if is_terminal else [text]
        super().write(''.join(part if index % 2 else printable(part, '\n\t\r') for index, part in enumerate(parts)))
        return len(text)


def _open_outputs() -> None:
    if os.name == 'nt':  # its console takes text, and no file
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # else a file that is opened gets the number of an output
        pass
    os.close(number)
    for number, name in ((1, 'stdout'), (2, 'stderr')):
        former = getattr(sys, name)
        if former is not None:
            former.flush()
        encoding = 'utf-8' if former is None else former.encoding
        is_direct = former is not None and former.write_through
        lines = number == 2 or (former is not None and former.line_buffering)
        file = _Output(number, 'w', closefd=False)
        buffer = file if is_direct else io.BufferedWriter(file)  # as Python does: PYTHONUNBUFFERED
        setattr(sys, name, _Text(buffer, encoding, 'backslashreplace', None, lines, is_direct))


def _printable_record(record: Any) -> Any:
    with contextlib.suppress(Exception):  # logging itself tells of a message that does not fit its arguments
        message = record.getMessage()
        if not message.isprintable() and (shown := printable(message, '\n\t')) != message:
            record.msg, record.args = shown, ()
    return record
