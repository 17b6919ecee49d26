"""Files and folders that are not there, and what locks them."""

import subprocess
import sys
from pathlib import Path

import pytest

from icconv_mm.datasets.checks import DatasetError, MissingDataError
from icconv_mm.errors import MissingArgumentFileError, MissingFileError, MissingLibraryError
from icconv_mm.utils.files import alone_in, read_small, require_argument_file, require_file, require_folder


def test_what_is_there_passes(tmp_path):
    file = tmp_path / 'a.json'
    file.touch()
    for path in (file, str(file), 's3://bucket/a.json'):
        require_file(path, 'ann_file')
        require_argument_file(path, 'ann_file')
    for path in (tmp_path, 's3://bucket'):
        require_folder(path, 'data_root')


def test_the_error_says_what_is_missing_and_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingFileError) as error:
        require_file('a.json', 'load_from')
    assert str(error.value) == f'load_from: no such file: a.json (in {tmp_path})'
    with pytest.raises(MissingFileError, match=r'^load_from: no such file: /a\.json$'):
        require_file('/a.json', 'load_from')
    with pytest.raises(MissingFileError, match=r'^config: no such file: http:/a\.py'):  # a path is local
        require_file(Path('http://a.py'), 'config')
    with pytest.raises(MissingArgumentFileError) as error:
        require_argument_file('a.json', 'resume')
    assert (error.value.argument, error.value.problem) == ('resume', f'no such file: a.json (in {tmp_path})')
    with pytest.raises(MissingFileError, match=rf'^pattern file: no such file: {tmp_path}$'):  # a folder
        read_small(tmp_path, 'pattern file')


def test_missing_data_is_an_error_of_the_dataset_and_a_missing_file(tmp_path):
    for require in (require_file, require_folder):
        with pytest.raises(MissingDataError, match=r'^d: no such f') as error:
            require(tmp_path / 'none', 'd', MissingDataError)
        assert isinstance(error.value, DatasetError) and isinstance(error.value, FileNotFoundError)


def test_a_system_without_locks_of_files(tmp_path, monkeypatch):
    """As Windows is: folders cannot be held, and whoever holds none is not asked for locks."""
    monkeypatch.setitem(sys.modules, 'fcntl', None)
    with pytest.raises(MissingLibraryError, match="Python's fcntl"), alone_in(tmp_path / 'work', 'another'):
        pass
    code = (
        'import sys, torch\n'
        'sys.modules["fcntl"] = None\n'
        'from icconv_mm import backbones, checkpoints, layers, necks, patterns\n'
        'backbones.ICResNet(18, "geometric_d2", base_channels=8)(torch.randn(1, 3, 64, 64))\n'
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
