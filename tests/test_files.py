"""Files that appear whole, files and folders that are not there, and commands of tools in messages."""

import json
import os
from pathlib import Path

import pytest

from icconv_mm import versions
from icconv_mm.datasets.checks import DatasetError, MissingDataError
from icconv_mm.errors import ArgumentError, InputError, MissingFileError
from icconv_mm.files import (
    alone_in,
    atomic_write,
    new_folder,
    owned_folder,
    read_small,
    require_file,
    require_folder,
)
from icconv_mm.versions import command_of


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / 'new' / 'a'
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b'half')
        raise ZeroDivisionError
    assert list(path.parent.iterdir()) == []
    with atomic_write(path) as file:
        file.write(b'whole')
    assert path.read_bytes() == b'whole'


def test_names_until_then_cannot_be_guessed(tmp_path):
    """A link of that name would lead elsewhere."""
    names = set()
    for _ in range(3):
        with atomic_write(tmp_path / 'a'):
            names |= {path.name for path in tmp_path.iterdir() if path.name != 'a'}
    assert len(names) == 3


def test_what_is_there_passes(tmp_path):
    file = tmp_path / 'a.json'
    file.touch()
    for path in (file, str(file), 's3://bucket/a.json'):
        require_file(path, 'ann_file')
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
    with pytest.raises(MissingFileError, match=rf'^pattern file: no such file: {tmp_path}$'):  # a folder
        read_small(tmp_path, 'pattern file')


def test_missing_data_is_an_error_of_the_dataset_and_a_missing_file(tmp_path):
    for require in (require_file, require_folder):
        with pytest.raises(MissingDataError, match=r'^d: no such f') as error:
            require(tmp_path / 'none', 'd', MissingDataError)
        assert isinstance(error.value, DatasetError) and isinstance(error.value, FileNotFoundError)


@pytest.mark.parametrize(
    ('with_mim', 'expected'),
    [(True, 'mim run icconv_mm infer -h'), (False, 'python {package}/.mim/tools/infer.py -h')],
)
def test_from_an_installation(with_mim, expected, tmp_path, monkeypatch):
    package = tmp_path / 'site-packages/icconv_mm'
    monkeypatch.setattr(versions, '_PACKAGE', package)
    monkeypatch.setattr('icconv_mm.versions.is_installed', lambda name: with_mim and name == 'mim')
    assert command_of('infer', '-h') == f'`{expected.format(package=package)}`'


def test_from_the_command_icconv(monkeypatch):
    monkeypatch.setattr(versions, 'OWN_COMMAND', 'icconv')
    assert command_of('infer', 'a b', '-h') == "`icconv predict 'a b' -h`"
    assert not command_of('convert_checkpoint').startswith('`icconv')


def test_from_a_checkout(tmp_path, monkeypatch):
    """The command works where the user is."""
    checkout = tmp_path / 'icconv mm'
    (checkout / 'tools').mkdir(parents=True)
    (checkout / 'tools/infer.py').touch()
    monkeypatch.setattr(versions, '_PACKAGE', checkout / 'icconv_mm')
    monkeypatch.chdir(checkout)
    assert command_of('infer', '-h') == '`python tools/infer.py -h`'
    monkeypatch.chdir(tmp_path)
    assert command_of('infer', '-h') == f"`python '{checkout}/tools/infer.py' -h`"


# --- folders that are written as one ---


def _write(folder, contents, **options):
    with owned_folder(folder, **options) as draft:
        for name, text in contents.items():
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(text)


def _files(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob('[!.]*') if path.is_file()}


def test_an_owned_folder_replaces_its_own_files_alone(tmp_path):
    folder = tmp_path / 'out'
    _write(folder, {'a.json': '1', 'maps/x/1.png': '1', 'maps/2.png': '2'})
    (folder / 'maps' / 'mine.png').write_text('mine')
    _write(folder, {'a.json': '2', 'maps/2.png': '3'})
    assert _files(folder) == {'a.json': '2', 'maps/2.png': '3', 'maps/mine.png': 'mine'}
    assert not (folder / 'maps' / 'x').exists()  # it was empty


def test_a_file_that_was_changed_is_somebody_elses(tmp_path):
    folder = tmp_path / 'out'
    _write(folder, {'a.json': '1', 'b.json': '1'})
    (folder / 'a.json').write_text('edited')
    with pytest.raises(
        ArgumentError, match=r'out_dir.*1 files are not as this command wrote them, the first is a\.json'
    ):
        _write(folder, {'a.json': '2', 'b.json': '2'})
    assert _files(folder) == {'a.json': 'edited', 'b.json': '1'}
    _write(folder, {'b.json': '2'})
    assert _files(folder) == {'a.json': 'edited', 'b.json': '2'}
    _write(folder, {'a.json': '3'}, is_overwritten=True)
    assert _files(folder) == {'a.json': '3'}


def test_a_folder_of_others_is_refused_unless_files_are_overwritten(tmp_path):
    for name in ('a.json', 'maps/1.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('mine')
    with pytest.raises(ArgumentError, match=r'is not an empty folder: choose another, or replace files .*--overwrite'):
        _write(tmp_path, {'a.json': '1'})
    with pytest.raises(ArgumentError, match='is not an empty folder'):
        _write(tmp_path / 'a.json', {'a.json': '1'})
    _write(tmp_path, {'a.json': '1'}, is_overwritten=True)
    assert _files(tmp_path) == {'a.json': '1', 'maps/1.png': 'mine'}
    _write(tmp_path, {'b.json': '1'})
    assert _files(tmp_path) == {'b.json': '1', 'maps/1.png': 'mine'}


@pytest.mark.parametrize('name', ['../victim', 'link/victim', '{absolute}', 'victim_link', '.', ''])
def test_a_list_cannot_name_files_elsewhere(tmp_path, name):
    import hashlib

    victim, folder = tmp_path / 'victim', tmp_path / 'out'
    victim.write_text('mine')
    folder.mkdir()
    (folder / 'link').symlink_to(tmp_path)
    (folder / 'victim_link').symlink_to(victim)
    listed = {name.format(absolute=victim): hashlib.sha256(b'mine').hexdigest() if name.strip('.') else ''}
    (folder / '.icconv_files.json').write_text(json.dumps(listed))
    _write(folder, {'a.json': '1'})
    assert victim.read_text() == 'mine' and (folder / 'victim_link').is_symlink() and (folder / 'a.json').is_file()


@pytest.mark.parametrize('write', [new_folder, owned_folder])
@pytest.mark.parametrize('is_there', [True, False])
def test_after_an_exception_nothing_is_there(tmp_path, write, is_there):
    folder = tmp_path / 'out'
    if is_there:
        folder.mkdir()
    with pytest.raises(ZeroDivisionError), write(folder) as draft:
        (draft / 'half').touch()
        raise ZeroDivisionError
    assert not folder.is_dir() or not any(folder.iterdir())
    with write(folder) as draft:
        (draft / 'images').mkdir()
        (draft / 'images' / 'a').symlink_to(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['out']
    if write is new_folder:
        assert os.readlink(folder / 'images' / 'a') == str(tmp_path)
        with pytest.raises(ArgumentError, match=r'out: .* is not an empty folder: choose another'), write(folder):
            pass


def test_a_lock_that_is_no_plain_file_is_told(tmp_path):
    (tmp_path / 'link').symlink_to('/nowhere')
    (tmp_path / 'folder').mkdir()
    os.mkfifo(tmp_path / 'pipe')
    for name in ('link', 'folder', 'pipe'):
        with pytest.raises(InputError, match=rf'{name} is no plain file'), alone_in(tmp_path, 'a run is at work', name):
            pass
    with alone_in(tmp_path, 'a run is at work', 'lock'):
        assert (tmp_path / 'lock').is_file()
