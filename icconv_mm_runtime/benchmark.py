"""Times the steps of a prediction."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Times:
    """Milliseconds of a step for a batch: the median of all runs, and the tenth and ninetieth percentile."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f'{self.median:9.2f} ms  ({self.low:.2f} to {self.high:.2f})'


@dataclass(frozen=True)
class Benchmark:
    """Times of the steps for a batch, and images per second, by the median of their sum.

    ``preprocess`` starts with the pixels of the images and ends with the network's input, ``postprocess`` ends with the
    predictions; neither reads or writes files.
    """

    batch_size: int
    runs: int
    preprocess: Times
    network: Times
    postprocess: Times
    images_per_second: float

    def __str__(self) -> str:
        lines = [f'{name:12}{getattr(self, name)}' for name in ('preprocess', 'network', 'postprocess')]
        return '\n'.join([*lines, f'{self.images_per_second:.2f} images per second, {self.batch_size} in a batch'])


def time_steps(steps: Sequence[Callable[[Any], Any]], images: Sequence[Any], batch_size: int, runs: int) -> Benchmark:
    """Returns the times of three steps, each of which gets the result of the one before it, the first an image."""
    warmup, milliseconds = math.ceil(runs / 10), []
    for number in range(warmup + runs):
        value, marks = images[number % len(images)], [time.perf_counter()]
        for step in steps:
            value = step(value)
            marks.append(time.perf_counter())
        milliseconds.append(np.diff(marks) * 1e3)
    timed = np.array(milliseconds[warmup:])
    low, median, high = np.percentile(timed, (10, 50, 90), axis=0)
    times = [Times(*map(float, times)) for times in zip(median, low, high)]
    return Benchmark(batch_size, runs, *times, batch_size * 1e3 / float(np.median(timed.sum(1))))
