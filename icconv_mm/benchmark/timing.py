"""Timing of contenders in turn, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Options:
    """How to time.

    Attributes:
        repeats: Timed calls of every contender.
        warmup: Calls before that.
        threads: Threads of torch; None leaves its default.
        device: Where networks run.
    """

    repeats: int = 9
    warmup: int = 2
    threads: int | None = None
    device: str = 'cpu'


@dataclass(frozen=True)
class Timing:
    """Seconds of one contender."""

    minimum: float
    median: float
    repeats: int


def interleave(contenders: Mapping[str, Callable[[], object]], options: Options) -> dict[str, Timing]:
    """Call every contender in turn, ``warmup + repeats`` times.

    Returns:
        Minimum and median of the timed calls, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(options.warmup + options.repeats):
        for name, call in contenders.items():
            _synchronise(options.device)
            start = time.perf_counter()
            call()
            _synchronise(options.device)
            if number >= options.warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(min(times), statistics.median(times), len(times)) for name, times in seconds.items()}


def _synchronise(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
