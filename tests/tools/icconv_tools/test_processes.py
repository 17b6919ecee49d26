"""How child processes end."""

import signal
import subprocess
import sys
import time

import pytest

from icconv_tools.processes import Children


def code(text: str) -> list[str]:
    return [sys.executable, '-u', '-c', f'import os, signal, sys, time\n{text}']


SLEEPING = code('time.sleep(60)')


def test_how_a_process_ended_is_a_message(tmp_path):
    log = tmp_path / 'it.log'
    with Children() as children:
        failed = children.run(code('print(os.environ["IT"])\nsys.exit("so")'), log, env={'IT': 'said'})
        assert str(failed) == 'ended with status 1: so' and log.read_text() == 'said\nso\n'
        assert str(children.run(SLEEPING, log, 0.5)) == 'took too long'
        assert str(children.run(code('os.kill(os.getpid(), signal.SIGKILL)'), log)) == 'was ended by SIGKILL'


def test_children_end_with_the_block_at_sigterm_too(monkeypatch):
    monkeypatch.setattr('icconv_tools.processes.GRACE_SECONDS', 0.2)
    stubborn = code('signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint()\ntime.sleep(60)')
    with pytest.raises(KeyboardInterrupt), Children() as children:
        started = [children.start(SLEEPING), children.start(stubborn, stdout=subprocess.PIPE)]
        started[1].stdout.readline()
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
    assert [child.returncode for child in started] == [-signal.SIGTERM, -signal.SIGKILL]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
