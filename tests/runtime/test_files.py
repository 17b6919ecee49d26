"""Files that appear complete, several as one, for the user alone if the umask says so."""

import errno
import json
import os
import subprocess
import sys
import time

import pytest

from icconv_mm_runtime import files
from icconv_mm_runtime.coco import write_results


@pytest.fixture
def umask():
    former = os.umask(0o077)
    yield
    os.umask(former)


def fail(*_):
    raise OSError(errno.ENOSPC, 'full')


def test_a_file_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / 'predictions.json'
    files.write_bytes(path, b'old')
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"full: '.*predictions\.json'"):
        patch.setattr(os, 'fsync', fail)
        files.write_bytes(path, b'new')
    assert [file.name for file in tmp_path.iterdir()] == ['predictions.json'] and path.read_bytes() == b'old'
    files.write_bytes(path, b'new')
    assert path.read_bytes() == b'new'


def test_a_file_has_the_permissions_that_the_umask_leaves(tmp_path, umask):
    files.dump_json(tmp_path / 'a.json', [])
    with files.write_together(tmp_path / 'folder', ['b']) as folder:
        files.write_bytes(folder / 'b', b'')
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / 'a.json', tmp_path / 'folder', tmp_path / 'folder/b')]
    assert modes == [0o600, 0o700, 0o600]


def test_the_longest_name_can_be_written(tmp_path):
    files.write_bytes(tmp_path / ('x' * 255), b'whole')
    with files.write_together(tmp_path, ['y' * 255]) as folder:
        files.write_bytes(folder / ('y' * 255), b'whole')
    assert {len(path.name) for path in tmp_path.iterdir()} == {255}


@pytest.mark.parametrize('limit', range(4))
def test_files_of_two_runs_are_never_read_together(tmp_path, monkeypatch, limit):
    """A process that ends between the files, wherever, leaves none that can be read, or those of one run."""
    for name in ('images.json', 'predictions.json', 'vis/a.jpg'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('old')
    replace, done = os.replace, []

    def until(source, target):
        if len(done) == limit:
            raise KeyboardInterrupt
        done.append(replace(source, target))

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', until)
        try:
            with files.write_together(tmp_path, ['images.json']) as folder:
                (folder / 'vis').mkdir()
                for name in ('images.json', 'predictions.json', 'vis/a.jpg'):
                    (folder / name).write_text('new')
        except KeyboardInterrupt:
            pass
    texts = {path.read_text() for path in tmp_path.rglob('*.*') if path.is_file()}
    assert texts == {'new'} if limit == 3 else not (tmp_path / 'images.json').exists()
    assert not list(tmp_path.glob('.icconv*'))


def test_a_full_disk_leaves_the_former_pair(tmp_path, monkeypatch):
    def rows(number):
        image = {'id': number, 'width': 8, 'height': 8}
        return lambda: [{'path': f'{number}.png', 'image': image, 'records': {'': [{'image_id': number}]}}]

    task = {'': {'classes': ['a'], 'kind': 'detection'}}
    write_results(tmp_path, task, rows(1))
    with monkeypatch.context() as patch, pytest.raises(OSError, match='full'):
        patch.setattr(os, 'fsync', fail)
        write_results(tmp_path, task, rows(2))
    assert json.loads((tmp_path / 'predictions.json').read_text()) == [{'image_id': 1}]
    listed = json.loads((tmp_path / 'images.json').read_text())
    assert listed == {
        'images': [{'id': 1, 'width': 8, 'height': 8, 'file_name': '1.png'}],
        'annotations': [],
        'categories': [{'id': 1, 'name': 'a'}],
    }


def test_a_folder_in_the_place_of_a_file_leaves_the_former_ones(tmp_path):
    (tmp_path / 'predictions.json').mkdir()
    (tmp_path / 'images.json').write_text('old')
    with pytest.raises(IsADirectoryError), files.write_together(tmp_path, ['images.json']) as folder:
        for name in ('images.json', 'predictions.json'):
            (folder / name).write_text('new')
    assert (tmp_path / 'images.json').read_text() == 'old'


def test_leftovers_of_killed_processes_are_removed_and_those_of_running_ones_stay(tmp_path):
    (tmp_path / files.temporary_name()).mkdir()
    (tmp_path / files.temporary_name()).write_text('half')
    for path in tmp_path.iterdir():
        os.utime(path, (1, 1))
    young = tmp_path / files.temporary_name()
    young.mkdir()
    with files.write_together(tmp_path, ['a']) as running:
        os.utime(running, (time.time() - 3600,) * 2)
        with files.write_together(tmp_path, ['b']) as other:
            (other / 'b').touch()
        assert running.is_dir() and young.is_dir()
        (running / 'a').touch()
    assert {path.name for path in tmp_path.iterdir()} == {'a', 'b', young.name}


def test_the_owners_for_the_ground_import_without_opencv():
    code = 'import sys; sys.modules["cv2"] = sys.modules["numpy"] = None; import icconv_mm_runtime.files'
    subprocess.run([sys.executable, '-c', code], check=True)
