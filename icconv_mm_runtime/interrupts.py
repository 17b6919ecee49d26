"""Hears Ctrl-C while a command imports what :mod:`icconv_mm_runtime.process` needs; itself imports nothing new."""

import _signal  # that `signal` makes enums of, which takes as long as the rest until here
import os


def await_interrupts() -> None:
    """Ends the process at Ctrl-C, with one line and the status of shells, until ``begin_process`` prepares it."""
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:  # not one that `nohup` or a & ignores
        _signal.signal(_signal.SIGINT, end_process)


def end_process(*_: object) -> None:
    """Ends the process at once, of which nothing is there yet."""
    os.write(2, b'\ninterrupted\n')
    os._exit(130)
