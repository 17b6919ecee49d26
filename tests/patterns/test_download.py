"""Published patterns arrive from a folder or an address laid out as the official ones are."""

import functools
import hashlib
import http.server
import importlib
import shutil
import threading

import pytest
from servers import dripping_server

from icconv_mm.patterns import PUBLISHED, download, load_pattern
from icconv_mm.patterns.download import DownloadError, download_patterns, location

NAME, RESNEXT = 'detection/ic_resnet50_k9', 'detection/ic_resnext101_32x4d_k9'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all files by their paths in the official repository; they have the expected checksums."""
    for i, name in enumerate(PUBLISHED, 1):
        content = f'[{{"(0, 0)": {i}}}]'.encode()
        path = tmp_path / 'files' / location(name)[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        monkeypatch.setitem(PUBLISHED, name, hashlib.sha256(content).hexdigest())
    return tmp_path / 'files'


@pytest.fixture
def address(folder, tmp_path):
    """An HTTP server that has every file at COMMIT/PATH, and only there."""
    for name in PUBLISHED:
        target = tmp_path / 'served' / '/'.join(location(name))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / location(name)[1], target)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / 'served'))
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.fixture(scope='module')
def tool():
    return importlib.import_module('download_patterns')


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('form', ['folder', 'folder in it', 'folder of names', 'address'])
def test_fetches_all_once(form, folder, address, cache, tmp_path):
    source = {'folder': folder, 'folder in it': folder / 'pattern_zoo', 'address': f'{address}/'}.get(form)
    if form == 'folder of names':
        source = tmp_path / 'names'
        for name in PUBLISHED:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / location(name)[1], source / f'{name}.json')
    assert download_patterns(source=source) == dict.fromkeys(PUBLISHED, True)
    assert files(cache) == sorted(f'patterns/{name}.json' for name in PUBLISHED)
    assert load_pattern(RESNEXT)[0].out_channels == 3
    assert download_patterns(source=source) == dict.fromkeys(PUBLISHED, False)


def test_a_clone_of_the_repository(folder, cache, monkeypatch):
    """What its last commit has arrives; how to get the one file of an older commit is reported, and no program runs."""
    (folder / location(RESNEXT)[1]).unlink()
    (folder / '.git').mkdir()
    remote = '[remote "o"]\n\turl = .\n\tpromisor = true\n\tuploadpack = touch /tmp/icconv_mm_ran; false'
    (folder / '.git' / 'config').write_text(remote)
    monkeypatch.setattr('subprocess.Popen', None)
    monkeypatch.setattr('os.system', None)
    with pytest.raises(DownloadError, match=r'1 of 7 published patterns are missing:\n  detection/ic_resnext') as e:
        download_patterns(source=folder)
    assert list(e.value.failed) == [RESNEXT] and len(e.value.fetched) == 6
    commit, path = location(RESNEXT)
    assert f'there is no {path} and no {RESNEXT}.json' in str(e.value)
    assert f'git show {commit}:{path} > {RESNEXT}.json' in str(e.value)
    assert len(files(cache)) == 6


def test_a_changed_file_is_not_the_published_one(address, cache, monkeypatch):
    path = cache / f'patterns/{NAME}.json'
    path.parent.mkdir(parents=True)
    path.write_text('[{"(0, 0)": 99}]')
    with pytest.raises(FileNotFoundError, match=f'{NAME}. is another file than published: {path}: run '):
        load_pattern(NAME)
    monkeypatch.delenv('ICCONV_MM_OFFLINE')
    monkeypatch.setattr(download, 'PUBLISHED_AT', address)
    assert load_pattern(NAME)[0].out_channels == 1


def test_one_that_fails_does_not_keep_the_others_back(address, cache, tmp_path):
    commit, path = location(NAME)
    (tmp_path / 'served' / commit / path).write_bytes(b'[]')
    digest = hashlib.sha256(b'[]').hexdigest()
    message = f'{address}/{commit}/{path} is not the published file: SHA-256 {digest}, expected {PUBLISHED[NAME]}'
    with pytest.raises(DownloadError, match=message) as error:
        download_patterns(source=address)
    assert error.value.fetched == dict.fromkeys(list(PUBLISHED)[1:], True)
    assert f'patterns/{NAME}.json' not in files(cache) and len(files(cache)) == 6


def test_an_interrupted_write_leaves_nothing(folder, cache, monkeypatch):
    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr('os.replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_patterns([NAME], folder)
    assert files(cache) == []


@pytest.mark.parametrize('name', [NAME, RESNEXT])
def test_a_name_is_fetched_when_it_is_first_used(name, address, cache, monkeypatch, caplog):
    monkeypatch.delenv('ICCONV_MM_OFFLINE')
    monkeypatch.setattr(download, 'PUBLISHED_AT', address)
    patterns = load_pattern(name)
    assert load_pattern(name) == patterns and files(cache) == [f'patterns/{name}.json']
    assert [record.getMessage() for record in caplog.records] == [
        f'fetching the published pattern {name!r} from {address} into {(cache / "patterns" / name).parent}'
    ]


def test_first_use_without_a_connection(address, cache, monkeypatch):
    path = cache / f'patterns/{NAME}.json'
    message = f'{NAME}. is not there: {path}: run `python tools/download_patterns.py`'
    monkeypatch.setattr(download, 'PUBLISHED_AT', f'{address}/nowhere')
    with pytest.raises(FileNotFoundError, match=f'{message}$'):
        load_pattern(NAME)
    monkeypatch.delenv('ICCONV_MM_OFFLINE')
    with pytest.raises(FileNotFoundError, match=rf'{message} \({address}/nowhere/.*File not found'):
        load_pattern(NAME)


def test_checksums_are_those_of_the_published_files(published_patterns):
    sums = dict(line.split()[::-1] for line in (published_patterns / 'SHA256SUMS').read_text().splitlines())
    assert {f'{name}.json': digest for name, digest in PUBLISHED.items()} == sums


def test_the_published_files_themselves(published_patterns, cache):
    assert all(download_patterns(source=published_patterns).values())
    assert len(load_pattern('human_pose/ic_resnet101_k13')) == 33


@pytest.mark.network
def test_the_authors_repository(cache):
    assert all(download_patterns().values())


def test_tool(tool, folder, address, cache, capsys):
    tool.main(['--from', str(folder)])
    assert '7 fetched, 0 already there' in capsys.readouterr().out
    tool.main([NAME, '--from', address])
    assert '0 fetched, 1 already there' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='error: no published pattern nonsense'):
        tool.main(['nonsense', '--from', str(folder)])
    (cache / f'patterns/{NAME}.json').unlink()
    message = f'error: 1 of 7 published patterns are missing:\n  {NAME}: {address}/nowhere/'
    with pytest.raises(SystemExit, match=message):
        tool.main(['--from', f'{address}/nowhere'])


def test_a_server_that_drips(cache, monkeypatch):
    """A byte now and then keeps a socket from timing out, in the head as in the body of an answer."""

    monkeypatch.setattr(download, '_LIMIT', 0.5)
    with dripping_server() as address, pytest.raises(DownloadError, match=r'no whole answer in 0\.5 seconds'):
        download_patterns([NAME], address)
