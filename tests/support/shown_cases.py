"""Which objects are shown: the one table for Python and for the page in the browser."""

import numpy as np

_NEXT = float(np.nextafter(np.float32(0.7), np.float32(0)))  # the float32 below 0.7

# Scores, labels (None for people), thresholds of the classes (None without), the given threshold; places of the shown.
CASES = [
    ([0.9, 0.31, 0.29], [0, 0, 0], None, None, [0, 1]),
    ([0.9, 0.3, 0.299999], [0, 0, 0], None, None, [0, 1]),  # not rounded
    ([0.7, _NEXT, 0.1], [0, 0, 0], [0.7], None, [0]),  # 0.7 as float32 is below 0.7
    ([0.9, 0.8, 0.7, 0.6], [0, 1, 2, 1], [0.85, None, 0.75], None, [0, 1, 3]),
    ([0.9, 0.4, 0.2], [0, 30, 30], [0.95], None, [1]),  # more classes than thresholds
    ([0.9, 0.4, 0.2], [0, 300, 1000], [0.95, 0.5], None, [1]),
    ([0.9, 0.4, 0.2], [0, 1, 2], [0.95, 0.9, 0.9], 0.35, [0, 1]),
    ([0.9, 0.4, 0.0], [0, 1, 2], [0.95, 0.9, 0.9], 0.0, [0, 1, 2]),
    ([0.9, 0.2], [0, 0], [0.0], None, [0, 1]),  # a threshold of 0 is one
    ([0.9, 0.4, 0.1], None, None, None, [0, 1]),
    ([0.9, 0.4, 0.1], None, [0.05], None, [0, 1, 2]),
    ([], [], [0.5], None, []),
]
