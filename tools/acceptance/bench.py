"""What a measurement gets, and what one is."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks.timing import Options

from acceptance.clock import GPU, Processor, measure
from acceptance.record import Record

HOME = Path(__file__).resolve().parents[2]  # the checkout


@dataclass(frozen=True)
class Bench:
    """Where and how to measure.

    Attributes:
        options: Device, repeats, and the scale of sizes.
        folder: For logs and tables: beside the file of results.
        record: The results so far.
    """

    options: Options
    folder: Path
    record: Record

    @property
    def dry(self) -> bool:
        """Whether there is no GPU: sizes are tiny, and times mean nothing."""
        return self.options.device == 'cpu'

    @property
    def device(self) -> Processor:
        """Its clock."""
        return Processor() if self.dry else GPU()

    def time(self, contenders: Mapping[str, Callable[[], object]], **settings) -> dict[str, dict[str, float]]:
        """:func:`acceptance.clock.measure` with the repeats of this bench."""
        return measure(contenders, self.device, self.options.repeats, **settings)


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
