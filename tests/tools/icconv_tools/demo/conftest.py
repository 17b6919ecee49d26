import pytest
from pretended_tools import DRAWING, pretend, use_home

from icconv_tools.miniature import ensure_miniature


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'miniature'
    ensure_miniature(root, DRAWING)
    return root


@pytest.fixture
def home(tmp_path, repo, monkeypatch):
    """A checkout whose tools only pretend, which the demo takes for its own."""
    folder = pretend(tmp_path / 'home', repo)
    use_home(monkeypatch, folder)
    return folder
