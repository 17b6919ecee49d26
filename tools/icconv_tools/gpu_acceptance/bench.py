"""What a measurement gets: where, how and with which version to measure. And what one is."""

import hashlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from icconv_mm.errors import InputError
from icconv_tools import HOME
from icconv_tools.benchmark.timing import Options
from icconv_tools.gpu_acceptance.results import ResultsFile
from icconv_tools.gpu_acceptance.timing import CPUClock, CUDAClock, measure
from icconv_tools.origin import origin

DRY = Options(repeats=1, warmup=0, scale=0.03)
ON_GPU = Options(repeats=15, warmup=3, device='cuda')


@dataclass(frozen=True)
class Bench:
    """Where and how to measure.

    Attributes:
        options: Device, repeats, and the scale of sizes.
        folder: For logs and tables: beside the file of results.
        results: Figures so far.
    """

    options: Options
    folder: Path
    results: ResultsFile

    @property
    def dry(self) -> bool:
        """Whether there is no GPU: sizes are tiny, and times mean nothing."""
        return self.options.device == 'cpu'

    @property
    def clock(self) -> CPUClock:
        """What times it."""
        return CPUClock() if self.dry else CUDAClock()

    def time(self, contenders: Mapping[str, Callable[[], object]], **settings) -> dict[str, dict[str, float]]:
        """:func:`icconv_tools.gpu_acceptance.timing.measure` with the repeats of this bench."""
        return measure(contenders, self.clock, self.options.repeats, **settings)


class Measurement(NamedTuple):
    """One figure.

    Attributes:
        name: ``<piece>/<what>``.
        run: Measures it; what it returns goes into the file of results.
        seconds: That it takes on a GPU, at most: it is not begun with less time left, and ended after twice that.
        needs: Libraries without which it is skipped, by import name.
    """

    name: str
    run: Callable[[Bench], dict]
    seconds: float = 20.0
    needs: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why it is skipped, in a sentence; None where it is not."""
        absent = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f'skipped: it needs {" and ".join(absent)}, not installed here' if absent else None


def against(times: Mapping[str, Mapping[str, float]], name: str, baseline: str, limits: Mapping[str, float]) -> dict:
    """Ratios of a contender to another, by kind of time, and whether those that have a limit keep it."""
    ratios = {kind: round(value / max(times[baseline][kind], 1e-9), 3) for kind, value in times[name].items()}
    verdicts = {kind: {'limit': limit, 'kept': ratios[kind] <= limit} for kind, limit in limits.items()}
    return {'contender': name, 'baseline': baseline, 'ratios': ratios, 'limits': verdicts}


def make_bench(path: Path, dry: bool, command: str) -> Bench:
    """What the measurements of this call get.

    Args:
        path: Path of the file of results.
        dry: Whether to do without a GPU.
        command: For a new file.

    Raises:
        InputError: There is no GPU; the file is of another machine or version, or cannot be there.
    """
    if not dry and not torch.cuda.is_available():
        raise InputError('torch finds no CUDA device; --dry-run does all this on the CPU, with tiny sizes')
    options = DRY if dry else ON_GPU
    facts = {**origin(options.device), 'options': asdict(options), 'source': source()}
    return Bench(options, path.resolve().parent, ResultsFile(path, facts, command))


def source() -> str:
    """A digest of the code that is measured: figures of two versions of a kernel must not stand in one file."""
    digest = hashlib.sha256()
    for folder in ('csrc', 'icconv_mm'):
        for path in sorted((HOME / folder).rglob('*')):
            if path.suffix in ('.py', '.cpp', '.h', '.inc', '.cu', '.cuh', '.json'):
                digest.update(f'{path.relative_to(HOME)}\0'.encode() + path.read_bytes())
    return digest.hexdigest()[:16]
