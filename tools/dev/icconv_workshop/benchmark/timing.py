"""Timing of contenders in turn, so that whatever else the machine does hits all of them alike."""

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
        device: Device of the networks.
        dtype: Data type of suites that leave it open: 'float32', 'bfloat16' or 'float16'; None for float32 on the CPU
            and bfloat16 elsewhere.
        scale: Factor of the sizes of images. Limits hold at 1, and no limit is reported elsewhere.
        only: Suites that time many things time those whose name contains this.
        cpu_time: Count the processor's time of this process, not the wall's. With one thread on a CPU it is what the
            wall's would be on a machine that does nothing else.
    """

    repeats: int = 9
    warmup: int = 2
    threads: int | None = None
    device: str = 'cpu'
    dtype: str | None = None
    scale: float = 1.0
    only: str = ''
    cpu_time: bool = False

    @property
    def tensor_dtype(self) -> torch.dtype:
        """The dtype to time in."""
        return getattr(torch, self.dtype or ('float32' if self.device == 'cpu' else 'bfloat16'))

    def scaled(self, *sizes: int) -> tuple[int, ...]:
        """Sizes in pixels, at least one, times ``scale``."""
        return tuple(max(1, round(size * self.scale)) for size in sizes)

    def wants(self, name: str) -> bool:
        """Whether ``only`` asks for it."""
        return self.only in name


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
    clock = time.process_time if options.cpu_time else time.perf_counter
    for number in range(options.warmup + options.repeats):
        for name, call in contenders.items():
            synchronize(options.device)
            start = clock()
            call()
            synchronize(options.device)
            if number >= options.warmup:
                seconds[name].append(clock() - start)
    return {name: Timing(min(times), statistics.median(times), len(times)) for name, times in seconds.items()}


def synchronize(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)
