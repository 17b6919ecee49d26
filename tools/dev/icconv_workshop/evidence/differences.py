"""Paired differences of arms, with bootstrap intervals."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

CONFIDENCE = 0.95
RESAMPLES = 9999


@dataclass(frozen=True)
class Difference:
    """What an arm has more than the baseline, of the same seed, over the seeds.

    Attributes:
        values: One per seed.
        mean: Mean of the values.
        low, high: Ends of the bootstrap interval of the mean; None of fewer than three seeds.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None

    @property
    def verdict(self) -> str:
        """'gain', 'loss', or 'open' where the interval holds zero or there is none."""
        if self.low is None or self.low <= 0 <= self.high:
            return 'open'
        return 'gain' if self.low > 0 else 'loss'


def paired(arm: Sequence[float], baseline: Sequence[float]) -> Difference:
    """The difference of two arms whose scores are of the same seeds, in the same order.

    Raises:
        ValueError: If they differ in number or are none.
    """
    if len(arm) != len(baseline) or not len(arm):
        raise ValueError(f'expected as many scores of the arm as of the baseline, got {len(arm)} and {len(baseline)}')
    values = np.subtract(arm, baseline)
    mean = float(values.mean())
    if len(values) < 3:
        return Difference(tuple(values.tolist()), mean, None, None)
    if np.ptp(values) == 0:  # of which the bootstrap says nan
        return Difference(tuple(values.tolist()), mean, mean, mean)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # a degenerate BCa interval is found out below
        settings = dict(confidence_level=CONFIDENCE, n_resamples=RESAMPLES, random_state=0)
        interval = bootstrap((values,), np.mean, method='BCa', **settings).confidence_interval
        if not np.isfinite(interval).all():
            interval = bootstrap((values,), np.mean, method='percentile', **settings).confidence_interval
    return Difference(tuple(values.tolist()), mean, float(interval.low), float(interval.high))
