"""The thresholds that an evaluation of a training stored beside its checkpoints."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

REPORT = 'report.json'  # in the folder of a run: its results, with the thresholds


def stored_thresholds(checkpoint: str, task: str, names: Sequence[str]) -> list[float | None] | None:
    """Returns the thresholds of a task in the report beside a checkpoint; None without any for these classes."""
    path = Path(checkpoint).parent / REPORT
    with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError):
        own = json.loads(path.read_bytes())['tasks'][task]
        found = [None if each is None else float(each) for each in own['thresholds']]
        is_valid = all(each is None or 0 <= each <= 1 for each in found)
        if found and own['classes'] == list(names) and len(found) == len(names) and is_valid:
            return found
    return None
