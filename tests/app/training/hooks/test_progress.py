"""The bar of a training."""

import io
import logging
import sys
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console

from icconv_mm.app.training.hooks.progress import ProgressBarHook


@pytest.fixture
def runner():
    logger = logging.Logger('test')
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return SimpleNamespace(logger=logger, iter=40, max_iters=100)


def _train(hook, runner, console=None):
    with hook.shown(runner, console):
        hook.before_train(runner)
        for runner.iter in range(40, 45):
            hook._shown = 0.0  # as if time had passed
            hook.after_train_iter(runner, 0, outputs={'loss': 1.25})
        runner.logger.warning('a line')
        hook.before_val_epoch(runner)
        print('as evaluators print')
        hook.after_val_epoch(runner)


def test_the_bar_is_shown_on_a_terminal_and_lines_above_it(runner, monkeypatch):
    monkeypatch.delenv('TERM', raising=False)
    shown, threads = io.StringIO(), threading.active_count()
    stream = runner.logger.handlers[0].stream
    hook = ProgressBarHook()
    _train(hook, runner, Console(file=shown, force_terminal=True, width=100))
    text = shown.getvalue()
    assert '45/100' in text and 'loss 1.25' in text and 'a line\n' in text
    assert runner.logger.handlers[0].stream is stream, 'the log is as before'
    assert threading.active_count() == threads


def test_no_thread_holds_a_lock_while_loaders_are_forked(runner):
    hook, threads = ProgressBarHook(), threading.active_count()
    out, err = sys.stdout, sys.stderr
    with hook.shown(runner, Console(file=io.StringIO(), force_terminal=True)):
        hook.before_train(runner)
        assert threading.active_count() == threads
        assert (sys.stdout, sys.stderr) == (out, err), 'what children print goes where it did'


@pytest.mark.parametrize('forced', [None, '1'])
def test_nothing_is_shown_in_a_file(runner, monkeypatch, capsys, forced):
    if forced:
        monkeypatch.setenv('FORCE_COLOR', forced)  # as CI sets it
    _train(ProgressBarHook(), runner)
    assert capsys.readouterr().out == 'as evaluators print\n'


def test_an_error_ends_the_bar(runner):
    hook, shown = ProgressBarHook(), io.StringIO()
    with pytest.raises(ValueError), hook.shown(runner, Console(file=shown, force_terminal=True)):
        hook.before_train(runner)
        raise ValueError
    assert hook._progress is None
    hook.after_train_iter(runner, 0)  # does nothing
