"""Commands of tools in messages: they work where the package is."""

import pytest

from icconv_mm.utils import tool_commands
from icconv_mm.utils.tool_commands import command_of


def test_in_a_checkout(repo):
    assert command_of('convert_checkpoint') == '`python tools/convert_checkpoint.py`'
    assert command_of('download_patterns', '--from', 'FOLDER') == '`python tools/download_patterns.py --from FOLDER`'
    assert (repo / 'tools/convert_checkpoint.py').is_file() and (repo / 'tools/download_patterns.py').is_file()


@pytest.mark.parametrize(
    ('with_mim', 'expected'),
    [(True, 'mim run icconv_mm infer -h'), (False, 'python {package}/.mim/tools/infer.py -h')],
)
def test_from_an_installation(with_mim, expected, tmp_path, monkeypatch):
    package = tmp_path / 'site-packages/icconv_mm'
    monkeypatch.setattr(tool_commands, '_PACKAGE', package)
    monkeypatch.setattr('icconv_mm.versions.is_installed', lambda name: with_mim and name == 'mim')
    assert command_of('infer', '-h') == f'`{expected.format(package=package)}`'
