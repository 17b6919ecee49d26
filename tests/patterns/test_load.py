import json
from itertools import pairwise

import pytest

from icconv_mm.patterns import PUBLISHED, DilationPattern, cache_folder, geometric_pattern, load_pattern, write_patterns
from icconv_mm.patterns.load import is_analytic

CHANNELS = [64, 64, 128]


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv('ICCONV_MM_CACHE', str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv('ICCONV_MM_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'xdg'))
    assert cache_folder() == tmp_path / 'xdg/icconv_mm'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    assert cache_folder() == tmp_path / 'home/.cache/icconv_mm'


def test_analytic_names():
    assert [list(p) for p in load_pattern('dense', CHANNELS)] == [[(n, 1, 1)] for n in CHANNELS]
    assert load_pattern('geometric_d1', CHANNELS) == load_pattern('dense', CHANNELS)
    assert list(load_pattern('geometric_d4', CHANNELS)[2]) == [(64, 1, 1), (32, 2, 2), (16, 3, 3), (16, 4, 4)]
    with pytest.raises(ValueError, match="'geometric_d4' fits a network: pass the channels"):
        load_pattern('geometric_d4')


def test_analytic_names_are_told_from_others():
    assert all(map(is_analytic, ('dense', 'geometric_d1', 'geometric_d12')))
    assert not any(map(is_analytic, ('geometric_d0', 'geometric_d4.json', 'Dense', next(iter(PUBLISHED)))))


def test_geometric_pattern_of_any_number_of_channels():
    for channels in range(1, 70):
        for d_max in range(1, 9):
            pattern = geometric_pattern(channels, d_max)
            assert pattern.out_channels == channels and pattern.max_dilation <= d_max
            counts = [run.out_channels for run in pattern.entries[:-1]]
            assert all(one + 1 >= other for one, other in pairwise(counts))


def test_grouped_networks():
    """Analytic patterns do not cut a group; patterns that count in groups are multiplied; each layer has its groups."""
    assert list(load_pattern('geometric_d3', [96], groups=32)[0]) == [(48, 1, 1), (24, 2, 2), (24, 3, 3)]
    in_groups = [[(24, 1, 1), (8, 2, 2)], [(10, 1, 1), (6, 2, 1)]]
    one, other = load_pattern(in_groups, [128, 64], groups=[32, 16])
    assert list(one) == [(96, 1, 1), (32, 2, 2)] and list(other) == [(40, 1, 1), (24, 2, 1)]
    with pytest.raises(ValueError, match='channels of 2 convolutions and the groups of 3'):
        load_pattern(in_groups, [128, 64], groups=[32, 16, 8])


def test_lists_and_paths(tmp_path):
    expected = [DilationPattern([(60, 1, 1), (4, 2, 2)])] * 2
    path = tmp_path / 'own.json'
    write_patterns(expected, path)
    forms = [
        str(path),
        path,
        expected,
        [[(60, 1, 1), (4, 2, 2)]] * 2,
        (((60, 1, 1), (4, 2, 2)),) * 2,
        json.loads(path.read_text()),
    ]
    for form in forms:
        assert load_pattern(form) == load_pattern(form, [64, 64]) == expected


def test_unknown_names(tmp_path):
    with pytest.raises(
        ValueError, match=r"'detection/ic_resnet77' is neither a file nor .*'dense'.*ic_resnext101_32x4d_k9"
    ):
        load_pattern('detection/ic_resnet77')
    with pytest.raises(ValueError, match=r'neither a file nor .*from 1 to 99'):
        load_pattern('geometric_d0')
    with pytest.raises(ValueError, match='is a folder; a pattern file'):
        load_pattern(tmp_path)
    with pytest.raises(ValueError, match=r"a pattern is a name, a file or a list .*, got \{'a': 1\}"):
        load_pattern({'a': 1})
    for odd in ('a\0b', '\ud800'):
        with pytest.raises(ValueError, match='neither a file nor'):
            load_pattern(odd)
    with pytest.raises(FileNotFoundError, match=r'pattern file: no such file: .*missing\.json'):
        load_pattern(str(tmp_path / 'missing.json'))


@pytest.mark.parametrize(
    ('layers', 'message'),
    [
        ([[(64, 1, 1)]] * 2, 'the network has 3 convolutions to convert, the pattern 2 layers'),
        ([[(64, 1, 1)]] * 4, 'the network has 3 convolutions to convert, the pattern 4 layers'),
        ([[(64, 1, 1)], [(60, 1, 1)], [(128, 1, 1)]], 'layer 1: the pattern sums to 60, expected 64 channels'),
        ([], 'has no layers'),
        ([[(64, 1, 1)], 'x', [(128, 1, 1)]], 'layer 1: expected an object'),
    ],
)
def test_patterns_that_do_not_fit(layers, message, tmp_path):
    with pytest.raises(ValueError, match=f'pattern: .*{message}'):
        load_pattern(layers, CHANNELS)
    path = tmp_path / 'own.json'
    path.write_text(json.dumps(layers))
    with pytest.raises(ValueError, match=f'own.json: .*{message}'):
        load_pattern(path, CHANNELS)


@pytest.mark.parametrize('source', [5, None, 2.5])
def test_something_else_than_a_pattern(source):
    with pytest.raises(ValueError, match='a pattern is a name, a file or a list with one entry per layer, got'):
        load_pattern(source)
