import json

import pytest

from icconv_mm.errors import InputError
from icconv_mm.files import MAX_BYTES
from icconv_mm.patterns import PUBLISHED, DilationPattern, read_patterns, write_patterns


def test_round_trip(tmp_path):
    patterns = [DilationPattern([(4, 1, 1), (0, 2, 1), (3, 2, 2)]), DilationPattern([(1, 1, 1), (1, 2, 2), (1, 1, 1)])]
    path = tmp_path / 'new folder' / 'pattern.json'
    write_patterns(patterns, path)
    again = read_patterns(path)
    assert again == patterns and [p.entries for p in again] == [p.entries for p in patterns]
    assert json.loads(path.read_text()) == [{'(0, 0)': 4, '(1, 0)': 0, '(1, 1)': 3}, [[1, 1, 1], [1, 2, 2], [1, 1, 1]]]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_files_without_loss(name, published_patterns, tmp_path):
    path = published_patterns / f'{name}.json'
    patterns = read_patterns(path)
    write_patterns(patterns, tmp_path / 'again.json')

    def pairs(file):
        return json.loads(file.read_text(), object_pairs_hook=list)

    assert pairs(tmp_path / 'again.json') == pairs(path)


# What the official code launches, published in the paper's repository as its pattern files.
@pytest.mark.parametrize(
    ('name', 'layers', 'runs', 'd_max'),
    [
        ('detection/ic_resnet50_k9', 16, 238, 4),
        ('detection/ic_resnet101_k9', 33, 510, 4),
        ('human_pose/ic_resnet50_k13', 16, 414, 6),
        ('human_pose/ic_resnet101_k13', 33, 908, 6),
    ],
)
def test_counts_of_the_published_files(name, layers, runs, d_max, published_patterns):
    patterns = read_patterns(published_patterns / f'{name}.json')
    assert (len(patterns), sum(map(len, patterns)), max(p.max_dilation for p in patterns)) == (layers, runs, d_max)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[{"(0, 0)": 4}', 'not JSON'),
        ('PK\x03\x04', 'not JSON'),
        ('[' * 100_000, 'not JSON'),
        ('{"(0, 0)": 4}', 'expected a list with one entry per layer, got an object'),
        ('4', 'expected a list with one entry per layer, got int'),
        ('[]', 'has no layers'),
        ('[{"(0, 0)": 4}, 5]', 'layer 1: expected an object .* got 5'),
        ('[{"(0, 0)": 4}, {"(0, 0)": 4, "(0, 1)": 2, "(0, 0)": 1}]', r"layer 1: the key '\(0, 0\)' appears 2 times"),
        (
            '[{"(9223372036854775807, 0)": 4}]',
            'layer 0: run 0: expected dilations and channels up to 1048576, got 92233',
        ),
        ('[{"(0, 0)": 9223372036854775808}]', 'layer 0: run 0: expected dilations and channels up to 1048576'),
        ('[{"(0, 0)": {"(0, 0)": 4}}]', 'layer 0: run 0: expected three integers'),
        ('[' * 990 + ']' * 990, 'not JSON|layer 0: '),
        (f'[{"9" * 5000}]', 'not JSON.*4300|layer 0: expected an object'),
        (f'[{{"(0, 0)": {"9" * 4300}}}]', 'layer 0: run 0: expected dilations and channels up to 1048576'),
        (f'[{{"({"9" * 4300}, 0)": 4}}]', 'layer 0: '),
        (f'[{{"({"9" * 5000}, 0)": 4}}]', 'layer 0: '),
        ('[{"\\ud800\\u0000": 4}]', 'layer 0: malformed key'),
    ],
)
def test_malformed_files_are_named(text, message, tmp_path):
    path = tmp_path / 'bad.json'
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_patterns(path)
    assert str(path) in str(caught.value)


def test_not_text(tmp_path):
    path = tmp_path / 'bad.json'
    path.write_bytes(b'\xff\xfe\x00\x80')
    with pytest.raises(ValueError, match=r'bad\.json: not JSON'):
        read_patterns(path)


def test_too_large(tmp_path):
    path = tmp_path / 'large.json'
    with path.open('wb') as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ValueError, match=rf'large\.json: {MAX_BYTES + 1} bytes .*at most {MAX_BYTES}'):
        read_patterns(path)


def test_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'^pattern file: no such file: .*nowhere\.json'):
        read_patterns(tmp_path / 'nowhere.json')
    with pytest.raises(FileNotFoundError):
        read_patterns(tmp_path)
