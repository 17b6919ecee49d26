"""Time of the processor and of the GPU, apart."""

import statistics
import time
from collections.abc import Callable, Collection, Mapping

import torch

CALLS = 10  # of one graph: a single call of a layer is shorter than what an event resolves


class CPUClock:
    """The clock of a dry run, which stands in for that of a GPU."""

    def synchronize(self) -> None:
        """Wait for all work that was issued."""

    def capture(self, call: Callable[[], object], count: int) -> Callable[[], object]:
        """What does the work of ``count`` calls; on a GPU without their Python."""
        return lambda: [call() for _ in range(count)]

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds that the device takes for what ``work`` issues."""
        start = time.perf_counter()
        work()
        return time.perf_counter() - start


class CUDAClock(CPUClock):
    """The clock of a CUDA device."""

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def capture(self, call: Callable[[], object], count: int) -> Callable[[], object]:
        """A CUDA graph; kernels are loaded and plans made before it, on a stream of its own."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(count):
                call()
        return graph.replay

    def seconds(self, work: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3


def measure(
    contenders: Mapping[str, Callable[[], object]],
    clock: CPUClock,
    repeats: int,
    *,
    calls: int = CALLS,
    eager: Collection[str] = (),
) -> dict[str, dict[str, float]]:
    """Medians of the contenders, called in turn, in microseconds per call.

    Args:
        contenders: What to time, by name.
        clock: Clock of the device on which it runs.
        repeats: Timed rounds.
        calls: Calls in one graph.
        eager: Contenders that cannot be captured, as they copy from the processor; their work on the device is timed
            with the gaps that launching leaves.

    Returns:
        By name ``processor``, until a call returns; ``wall``, until its work is done; ``GPU``, its work alone.
    """
    work = {}
    for name, call in contenders.items():
        call()  # the first call of a shape plans
        work[name] = CPUClock().capture(call, calls) if name in eager else clock.capture(call, calls)
    times = {name: {'processor': [], 'wall': [], 'GPU': []} for name in contenders}
    for _ in range(repeats):
        for name, call in contenders.items():
            clock.synchronize()
            start = time.perf_counter()
            call()
            issued = time.perf_counter()
            clock.synchronize()
            times[name]['processor'].append(issued - start)
            times[name]['wall'].append(time.perf_counter() - start)
            times[name]['GPU'].append(clock.seconds(work[name]) / calls)
    return {
        name: {kind: round(1e6 * statistics.median(each), 2) for kind, each in kinds.items()}
        for name, kinds in times.items()
    }
