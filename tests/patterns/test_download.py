"""Published patterns arrive from a clone, a folder or an address laid out as the official ones are."""

import functools
import hashlib
import http.server
import importlib
import subprocess
import threading

import pytest

from icconv_mm.patterns import PUBLISHED, download, load_pattern
from icconv_mm.patterns.download import PUBLISHED_AT, DownloadError, download_patterns, location

NAME, RESNEXT = 'detection/ic_resnet50_k9', 'detection/ic_resnext101_32x4d_k9'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


def git(folder, *arguments):
    identity = ['-c', 'user.name=nobody', '-c', 'user.email=nobody@example.org']
    done = subprocess.run(['git', '-C', str(folder), *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A repository with the paths of the official one, commit by commit; files have the expected checksums."""
    folder = tmp_path / 'clone'
    folder.mkdir()
    git(folder, 'init', '-q')
    older = [RESNEXT]
    for names in (older, [name for name in PUBLISHED if name not in older]):
        for name in names:
            content = f'[{{"(0, 0)": {list(PUBLISHED).index(name) + 1}}}]'.encode()
            path = folder / location(name)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            monkeypatch.setitem(PUBLISHED, name, hashlib.sha256(content).hexdigest())
        git(folder, 'add', '.')
        git(folder, 'commit', '-qm', 'Update')
        if names is older:
            first = git(folder, 'rev-parse', 'HEAD')
            git(folder, 'rm', '-q', location(RESNEXT)[1])
    monkeypatch.setitem(download._OLDER, RESNEXT, (first, location(RESNEXT)[1]))
    monkeypatch.setattr(download, '_LAST_COMMIT', git(folder, 'rev-parse', 'HEAD'))
    return folder


@pytest.fixture
def address(clone, tmp_path):
    """An HTTP server that has every file at COMMIT/PATH, and only there."""
    for commit in git(clone, 'rev-list', 'HEAD').split():
        for path in git(clone, 'ls-tree', '-r', '--name-only', commit).split():
            target = tmp_path / 'served' / commit / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(git(clone, 'show', f'{commit}:{path}'))

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


@pytest.mark.parametrize('form', ['clone', 'folder in a clone', 'bare clone', 'address', 'folder of names'])
def test_fetches_all_once(form, clone, address, cache, tmp_path):
    source = {'clone': clone, 'folder in a clone': clone / 'pattern_zoo', 'address': f'{address}/'}.get(form)
    if form == 'bare clone':
        git(tmp_path, 'clone', '-q', '--bare', clone, source := tmp_path / 'bare.git')
    elif form == 'folder of names':
        source = tmp_path / 'names'
        for name in PUBLISHED:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            commit, path = location(name)
            (source / f'{name}.json').write_text(git(clone, 'show', f'{commit}:{path}'))
    assert download_patterns(source=source) == dict.fromkeys(PUBLISHED, True)
    assert files(cache) == sorted(f'patterns/{name}.json' for name in PUBLISHED)
    assert load_pattern(RESNEXT)[0].out_channels == 3
    assert download_patterns(source=source) == dict.fromkeys(PUBLISHED, False)


def test_a_work_tree_without_history(clone, cache):
    """As from an archive: what the last commit has arrives, what is missing is named."""
    (clone / '.git').rename(clone / 'history')
    with pytest.raises(DownloadError, match=r'1 of 7 published patterns did not arrive:\n  detection/ic_resnext') as e:
        download_patterns(source=clone)
    assert list(e.value.failed) == [RESNEXT] and len(e.value.fetched) == 6
    commit, path = location(RESNEXT)
    assert f'there is no {path}, no {RESNEXT}.json, and no git history with commit {commit}' in str(e.value)
    assert len(files(cache)) == 6


def test_damaged_files_are_fetched_again(clone, cache):
    download_patterns([NAME], clone)
    path = cache / f'patterns/{NAME}.json'
    path.write_text(path.read_text()[:-3])
    assert download_patterns([NAME], clone) == {NAME: True}
    assert load_pattern(NAME)


def test_one_that_fails_does_not_keep_the_others_back(clone, address, cache, tmp_path):
    commit, path = location(NAME)
    (tmp_path / 'served' / commit / path).write_bytes(b'[]')
    found = hashlib.sha256(b'[]').hexdigest()
    message = f'{address}/{commit}/{path} is not the published file: SHA-256 {found}, expected {PUBLISHED[NAME]}'
    with pytest.raises(DownloadError, match=message) as error:
        download_patterns(source=address)
    assert error.value.fetched == dict.fromkeys(list(PUBLISHED)[1:], True)
    assert f'patterns/{NAME}.json' not in files(cache) and len(files(cache)) == 6


def test_failures_say_where_and_what_to_do(clone, address, cache):
    with pytest.raises(DownloadError, match=rf'{address}/nowhere/\w+/pattern_zoo/{NAME}.json: File not found.* --from'):
        download_patterns([NAME], f'{address}/nowhere')
    with pytest.raises(ValueError, match='no published pattern resnet50; there are: detection/ic_resnet50_k9'):
        download_patterns(['resnet50'], clone)
    assert not cache.exists()


def test_an_interrupted_write_leaves_nothing(clone, cache, monkeypatch):
    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr('pathlib.Path.replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_patterns([NAME], clone)
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
    message = f'{NAME}. is not at {path}: run `python tools/download_patterns.py`'
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


def test_where_the_authors_have_them():
    """Commit and path of each, as in the history of the repository; the ResNeXt's is in older commits only."""
    last = '0a92284559f6ddfc9d0e6ad94bcfed3e982d875f'
    expected = {name: (last, f'pattern_zoo/{name}.json') for name in PUBLISHED}
    expected[RESNEXT] = 'acd22f8bb4e5b76a56dabc7e72b888b5b2be67d3', 'pattern_zoo/ic_resnext_32x4d_k9.json'
    assert {name: location(name) for name in PUBLISHED} == expected
    assert PUBLISHED_AT == 'https://raw.githubusercontent.com/yifan123/IC-Conv'


@pytest.mark.network
def test_the_authors_repository(cache):
    assert all(download_patterns().values())


def test_tool(tool, clone, address, cache, capsys):
    tool.main(['--from', str(clone)])
    assert '7 fetched, 0 already there' in capsys.readouterr().out
    tool.main([NAME, '--from', address])
    assert '0 fetched, 1 already there' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='error: no published pattern nonsense'):
        tool.main(['nonsense', '--from', str(clone)])
    (cache / f'patterns/{NAME}.json').unlink()
    message = f'error: 1 of 7 published patterns did not arrive:\n  {NAME}: {address}/nowhere/'
    with pytest.raises(SystemExit, match=message):
        tool.main(['--from', f'{address}/nowhere'])
