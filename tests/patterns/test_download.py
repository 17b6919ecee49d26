import hashlib
import importlib.util

import pytest

from icconv_mm.errors import InputError
from icconv_mm.patterns import PUBLISHED, load_pattern
from icconv_mm.patterns.download import PUBLISHED_AT, download_patterns

NAME = 'detection/ic_resnet50_k9'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path / 'cache'))
    return tmp_path / 'cache'


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A clone of a repository like the published one, whose files have the expected checksums."""
    folder = tmp_path / 'clone/pattern_zoo'
    for number, name in enumerate(PUBLISHED):
        content = f'[{{"(0, 0)": {number + 1}}}]'.encode()
        path = folder / f'{name}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        monkeypatch.setitem(PUBLISHED, name, hashlib.sha256(content).hexdigest())
    return folder


@pytest.fixture(scope='module')
def tool(request):
    path = request.config.rootpath / 'tools/download_patterns.py'
    spec = importlib.util.spec_from_file_location('download_patterns', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('form', ['clone', 'zoo', 'address'])
def test_fetches_all_once(form, zoo, cache):
    source = {'clone': zoo.parent, 'zoo': zoo, 'address': f'{zoo.as_uri()}/'}[form]
    assert download_patterns(source=source) == dict.fromkeys(PUBLISHED, True)
    assert files(cache) == sorted(f'patterns/{name}.json' for name in PUBLISHED)
    assert load_pattern(NAME)[0].out_channels == 1
    assert download_patterns(source=source) == dict.fromkeys(PUBLISHED, False)


def test_damaged_files_are_fetched_again(zoo, cache):
    download_patterns([NAME], zoo)
    path = cache / f'patterns/{NAME}.json'
    path.write_text(path.read_text()[:-3])
    assert download_patterns([NAME], zoo) == {NAME: True}
    assert load_pattern(NAME)


def test_wrong_checksum_writes_nothing(zoo, cache):
    path = zoo / f'{NAME}.json'
    path.write_bytes(b'[]')
    found = hashlib.sha256(b'[]').hexdigest()
    with pytest.raises(
        ValueError, match=f'{path} is not the published file: SHA-256 {found}, expected {PUBLISHED[NAME]}'
    ):
        download_patterns([NAME], zoo)
    assert not cache.exists()


def test_failures_say_where_and_what_to_do(zoo, cache, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'neither pattern_zoo/detection/ic_resnet50_k9\.json nor'):
        download_patterns([NAME], tmp_path)
    address = (tmp_path / 'nowhere').as_uri()
    with pytest.raises(InputError, match=f'{address}/{NAME}.json: .*clone the repository elsewhere .* --source'):
        download_patterns([NAME], address)
    with pytest.raises(ValueError, match="no published pattern 'resnet50'; there are detection/ic_resnet50_k9"):
        download_patterns(['resnet50'], zoo)
    assert not cache.exists()


def test_an_interrupted_write_leaves_nothing(zoo, cache, monkeypatch):
    def interrupted(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr('pathlib.Path.replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_patterns([NAME], zoo)
    assert files(cache) == []


def test_checksums_are_those_of_the_published_files(shared):
    sums = dict(line.split()[::-1] for line in (shared / 'patterns/SHA256SUMS').read_text().splitlines())
    assert {f'{name}.json': digest for name, digest in PUBLISHED.items()} == sums


def test_the_published_files_themselves(shared, cache):
    assert all(download_patterns(source=shared / 'patterns').values())
    assert len(load_pattern('human_pose/ic_resnet101_k13')) == 33


def test_the_published_address_is_pinned():
    assert PUBLISHED_AT.startswith('https://') and '0a92284559f6ddfc9d0e6ad94bcfed3e982d875f' in PUBLISHED_AT


def test_tool(tool, zoo, cache, capsys, tmp_path):
    tool.main(['--source', str(zoo.parent)])
    assert '7 fetched, 0 already there' in capsys.readouterr().out
    tool.main([NAME, '--source', zoo.as_uri()])
    assert '0 fetched, 1 already there' in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        tool.main(['nonsense', '--source', str(zoo)])
    assert "error: no published pattern 'nonsense'" in str(end.value)
