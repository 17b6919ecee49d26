"""Configs of the smallest runs, in a folder of their own."""

from functools import partial

import pytest


@pytest.fixture
def cfg(tmp_path):
    """Makes the config of a run, with changes."""
    pytest.importorskip('mmengine')
    from small_runs import config

    return partial(config, tmp_path)
