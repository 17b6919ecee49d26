import pickle
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from icconv_mm.errors import InputError
from icconv_mm.patterns import DilationPattern

PUBLISHED = {'(0, 0)': 42, '(0, 1)': 0, '(2, 0)': 5, '(0, 3)': 17}  # out of order and with an empty entry


def test_runs():
    pattern = DilationPattern([(4, 1, 1), (0, 2, 2), [3, 1, 2]])
    assert list(pattern) == [(4, 1, 1), (3, 1, 2)]
    assert [(run.out_channels, run.dilation_h, run.dilation_w) for run in pattern] == [(4, 1, 1), (3, 1, 2)]
    assert pattern.flat == (4, 1, 1, 3, 1, 2)
    assert (len(pattern), pattern.out_channels, pattern.max_dilation) == (2, 7, 2)


def test_is_uniform_where_all_runs_have_one_dilation():
    assert DilationPattern([(4, 2, 1)]).is_uniform and DilationPattern([(4, 2, 1), (0, 1, 1), (3, 2, 1)]).is_uniform
    assert not DilationPattern([(4, 2, 1), (3, 1, 2)]).is_uniform


def test_is_frozen_hashable_and_compares_by_its_runs():
    pattern = DilationPattern([(4, 1, 1), (3, 1, 2)])
    with pytest.raises(FrozenInstanceError):
        pattern.entries = ()
    same = DilationPattern([(0, 3, 3), (4, 1, 1), (3, 1, 2)])
    assert same == pattern and hash(same) == hash(pattern) and len({same, pattern}) == 1
    assert DilationPattern([(3, 1, 2), (4, 1, 1)]) != pattern  # the order is that of the channels
    assert pickle.loads(pickle.dumps(pattern)) == pattern


def test_keys_of_the_published_form_are_one_less():
    pattern = DilationPattern.from_json(PUBLISHED)
    assert list(pattern) == [(42, 1, 1), (5, 3, 1), (17, 1, 4)]


def test_published_form_without_loss():
    again = DilationPattern.from_json(PUBLISHED).to_json()
    assert list(again.items()) == list(PUBLISHED.items())


def test_list_form_where_a_dilation_repeats():
    runs = [[2, 1, 1], [1, 4, 2], [3, 1, 1]]
    pattern = DilationPattern.from_json(runs)
    assert list(pattern) == [tuple(run) for run in runs]
    assert pattern.to_json() == runs
    assert DilationPattern.from_json([[2, 1, 1], [1, 4, 2]]).to_json() == {'(0, 0)': 2, '(3, 1)': 1}


def test_scaled():
    pattern = DilationPattern([(4, 1, 2), (0, 1, 1), (3, 3, 1)])
    assert pattern.scaled(1) is pattern
    assert pattern.scaled(2).entries == ((4, 2, 4), (0, 2, 2), (3, 6, 2))
    assert list(pattern.scaled((1, 3))) == [(4, 1, 6), (3, 3, 3)]


def test_for_convolution():
    pattern = DilationPattern([(3, 1, 1), (1, 2, 2)])
    assert pattern.for_convolution(4) is pattern
    assert list(pattern.for_convolution(32, groups=4)) == [(24, 1, 1), (8, 2, 2)]
    assert pattern.for_convolution(4, groups=2) is pattern
    with pytest.raises(InputError, match='sums to 4, expected 8 channels'):
        pattern.for_convolution(8)
    with pytest.raises(InputError, match='sums to 4, expected 32 channels or 8 groups'):
        pattern.for_convolution(32, groups=8)


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ([], 'at least one channel'),
        ([(0, 1, 1)], 'at least one channel'),
        ([(4, 1, 1), (2, 0, 1)], r'run 1: a dilation must be at least 1, got \(0, 1\)'),
        ([(4, 1, -2)], r'run 0: a dilation must be at least 1, got \(1, -2\)'),
        ([(-4, 1, 1)], 'run 0: the number of channels must not be negative, got -4'),
        ([(4, 1)], r'run 0: expected three integers .* got \(4, 1\)'),
        ([(4, 1, 1.5)], 'run 0: expected three integers'),
        ([(True, 1, 1)], 'run 0: expected three integers'),
        (['411'], 'run 0: expected three integers'),
        ([4, 1, 1], 'run 0: expected three integers'),
    ],
)
def test_malformed_runs(entries, message):
    with pytest.raises(InputError, match=message):
        DilationPattern(entries)


@pytest.mark.parametrize('given', ['geometric_d4', Path('pattern.json'), 3, None, b'411'])
@pytest.mark.parametrize('make', [DilationPattern, DilationPattern.of])
def test_what_is_no_table(make, given):
    with pytest.raises(InputError, match=r'of a layer is a table of runs .*, got .*names and files are for networks'):
        make(given)


@pytest.mark.parametrize(
    ('layer', 'message'),
    [
        ({'(0, 0, 0)': 4}, r"malformed key '\(0, 0, 0\)', expected"),
        ({'0, 0': 4}, "malformed key '0, 0'"),
        ({'(0, 0)': -4}, 'must not be negative, got -4'),
        ({}, 'at least one channel'),
        (7, 'expected an object of .* got 7'),
    ],
)
def test_malformed_json(layer, message):
    with pytest.raises(InputError, match=message):
        DilationPattern.from_json(layer)
