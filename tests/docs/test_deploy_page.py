"""docs/deploy.md: the code of the guide runs."""

import pytest
import torch
from pages import code_blocks

from icconv_mm.registry import HOOKS


@pytest.mark.slow
def test_the_code_of_the_guide_runs(tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime')
    monkeypatch.chdir(tmp_path)
    first, second, hook = code_blocks('docs/deploy.md')
    names: dict = {}
    exec(first, names)
    assert [tuple(level.shape) for level in names['maps']][-1] == (1, 2048, 7, 7)
    exec(second.replace('torch.compile(deployed)', "torch.compile(deployed, backend='eager')"), names)
    assert (tmp_path / 'backbone.onnx').is_file()
    assert len(names['compiled'](torch.randn(1, 3, 64, 64))) == 4
    exec(hook, names)
    HOOKS.build(names['custom_hooks'][0])
