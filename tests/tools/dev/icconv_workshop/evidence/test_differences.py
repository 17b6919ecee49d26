import numpy as np
import pytest

from icconv_workshop.evidence.differences import paired


def test_pairs_take_out_what_seeds_share():
    """Scores that vary between seeds by far more than the arms differ."""
    baseline = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    difference = paired(baseline + [1.0, 1.2, 0.8, 1.1, 0.9], baseline)
    assert difference.mean == pytest.approx(1.0) and 0.8 <= difference.low < difference.mean < difference.high <= 1.2
    assert difference.verdict == 'gain' and difference.values == pytest.approx((1.0, 1.2, 0.8, 1.1, 0.9))
    assert paired(baseline, baseline + [1.0, 1.2, 0.8, 1.1, 0.9]).verdict == 'loss'


def test_an_interval_around_zero_is_open():
    difference = paired([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.5])
    assert difference.low < 0 < difference.high and difference.verdict == 'open'


def test_two_seeds_have_no_interval():
    difference = paired([2.0, 3.0], [1.0, 1.0])
    assert (difference.mean, difference.low, difference.high, difference.verdict) == (1.5, None, None, 'open')
