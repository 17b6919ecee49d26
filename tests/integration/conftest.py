"""Fixtures of the integration tests."""

import pytest
from workspaces import DETECTION, TINY, Workspace, short

from icconv_tools.miniature import ensure_miniature


@pytest.fixture(scope='session')
def workspace(tmp_path_factory, repo) -> Workspace:
    root = tmp_path_factory.mktemp('workspace')
    ensure_miniature(root / 'data' / 'miniature', TINY)
    return Workspace(root, repo)


@pytest.fixture(scope='session')
def detector(workspace) -> str:
    """A checkpoint of the miniature detector after four iterations, validated and logged in ``runs/detector``."""
    error = workspace.tool('train', workspace.config(DETECTION), '--work-dir', 'runs/detector', *short(4))
    assert error is None
    return str(workspace.root / 'runs/detector/iter_4.pth')
