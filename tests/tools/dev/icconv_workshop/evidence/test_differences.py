import numpy as np
import pytest

from icconv_workshop.evidence.differences import paired


def test_pairs_take_out_what_seeds_share():
    """Scores that vary between seeds by far more than the arms differ."""
    baseline = np.array([10.0, 20.0, 30.0, 40.0, 50.0])
    found = paired(baseline + [1.0, 1.2, 0.8, 1.1, 0.9], baseline)
    assert found.mean == pytest.approx(1.0) and 0.8 <= found.low < found.mean < found.high <= 1.2
    assert found.verdict == 'gain' and found.values == pytest.approx((1.0, 1.2, 0.8, 1.1, 0.9))
    assert paired(baseline, baseline + [1.0, 1.2, 0.8, 1.1, 0.9]).verdict == 'loss'


def test_an_interval_around_zero_is_open():
    found = paired([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.5])
    assert found.low < 0 < found.high and found.verdict == 'open'


def test_two_seeds_have_no_interval():
    found = paired([2.0, 3.0], [1.0, 1.0])
    assert (found.mean, found.low, found.high, found.verdict) == (1.5, None, None, 'open')
