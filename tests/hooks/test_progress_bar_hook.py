"""The bar of a training."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from icconv_mm.hooks.progress import ProgressBarHook


@pytest.fixture
def runner():
    logger = logging.Logger('test')
    logger.addHandler(logging.StreamHandler(sys.stdout))
    return SimpleNamespace(logger=logger, iter=40, max_iters=100)


def _train(hook, runner, console):
    with hook.shown(runner, console):
        hook.before_train(runner)
        for runner.iter in range(40, 45):
            hook.after_train_iter(runner, 0, outputs={'loss': 1.25})
        hook.before_val_epoch(runner)
        runner.logger.warning('a line')
        hook.after_val_epoch(runner)
        if hook._progress is not None:
            hook._progress.refresh()


def test_the_bar_is_shown_on_a_terminal_and_lines_above_it(runner, monkeypatch):
    monkeypatch.delenv('TERM', raising=False)
    shown = io.StringIO()
    stream = runner.logger.handlers[0].stream
    _train(ProgressBarHook(), runner, Console(file=shown, force_terminal=True, width=100))
    text = shown.getvalue()
    assert '45/100' in text and 'loss 1.25' in text and 'a line\n' in text
    assert runner.logger.handlers[0].stream is stream, 'the log is as before'


def test_nothing_is_shown_in_a_file(runner, capsys):
    shown = io.StringIO()
    _train(ProgressBarHook(), runner, Console(file=shown))
    assert shown.getvalue() == ''


def test_an_error_ends_the_bar(runner):
    hook, shown = ProgressBarHook(), io.StringIO()
    with pytest.raises(ValueError), hook.shown(runner, Console(file=shown, force_terminal=True)):
        raise ValueError
    assert hook._progress is None
    hook.after_train_iter(runner, 0)  # does nothing
