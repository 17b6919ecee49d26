"""The session in which an exported file is checked."""

from pathlib import Path
from types import SimpleNamespace

import torch

from icconv_mm.app.export import run


def test_a_file_has_the_threads_of_the_model_that_it_is_compared_with(monkeypatch):
    monkeypatch.setattr(run, 'Session', lambda *arguments: arguments)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 3)
    described = SimpleNamespace(load=None, describe=lambda file, description: None)
    monkeypatch.setitem(run.writers.FORMATS, 'drawn', described)
    assert run.open_session(SimpleNamespace(), {}, 'drawn', Path('a.onnx')) == (Path('a.onnx'), 3)
