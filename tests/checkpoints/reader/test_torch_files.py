"""The formats of ``torch.save``: tensors with what they share, where they go, and archives that hold code."""

import pytest
import torch

from icconv_mm.checkpoints import safe


class Writes(torch.nn.Module):
    """Compiled by TorchScript, a module whose state is set by code of the file."""

    def forward(self, x):
        return x


def test_a_torchscript_archive_is_refused(tmp_path, monkeypatch):
    """``torch.load`` of torch < 2.6 passes one on to ``torch.jit.load`` even with an unpickler of the caller's."""
    monkeypatch.setattr(torch.jit, 'load', lambda *_, **__: pytest.fail('it was loaded'))
    monkeypatch.setattr(torch, 'load', lambda *_, **__: pytest.fail('it was left to torch.load'))
    path = tmp_path / 'script.pth'
    torch.jit.script(Writes()).save(str(path))
    with pytest.raises(safe.UnsafeCheckpointError, match='it asks for code: it is a TorchScript archive'):
        safe.load(path)


def test_bytes_that_are_no_bool_become_true(tmp_path):
    path = tmp_path / 'bools.pth'
    torch.save({'flags': torch.tensor([0, 1, 2, 255], dtype=torch.uint8).view(torch.bool)}, path)
    assert safe.load(path)['flags'].view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_tensors_keep_what_they_share(tmp_path):
    whole = torch.arange(6.0)
    content = {'whole': whole, 'part': whole[2:], 'turned': whole.view(2, 3).T, 'wide': torch.ones(1).expand(3, 4)}
    content['half'] = torch.ones(2, dtype=torch.bfloat16)
    content['parameter'] = torch.nn.Parameter(torch.ones(2))
    for zip_format in (True, False):
        torch.save(content, tmp_path / 'shared.pth', _use_new_zipfile_serialization=zip_format)
        read = safe.load(tmp_path / 'shared.pth')
        torch.testing.assert_close(read, content)
        assert read['turned'].stride() == (1, 3) and isinstance(read['parameter'], torch.nn.Parameter)
        read['whole'][2] = 100
        assert read['part'][0] == 100


@pytest.mark.parametrize('zip_format', [True, False])
@pytest.mark.parametrize('where', ['meta', torch.device('meta'), {'cpu': 'meta'}, lambda storage, location: storage])
def test_map_location(tmp_path, where, zip_format):
    torch.save({'weight': torch.ones(3)}, tmp_path / 'a.pth', _use_new_zipfile_serialization=zip_format)
    device = safe.load(tmp_path / 'a.pth', where)['weight'].device.type
    assert device == ('cpu' if callable(where) else 'meta')
