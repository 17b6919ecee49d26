"""docs/search.md: the code of the guide runs, one block after the other."""

import pytest
from pages import code_blocks

from icconv_mm.layers import ICConv2d


def test_the_code_of_the_guide_runs(tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    monkeypatch.chdir(tmp_path)
    blocks = code_blocks('docs/search.md')
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        exec(compile(block, 'docs/search.md', 'exec'), names)
    layers = [module for module in names['fresh'].modules() if isinstance(module, ICConv2d)]
    assert len(layers) == 16
