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
        stored = json.loads(path.read_bytes())['tasks'][task]
        thresholds = [None if threshold is None else float(threshold) for threshold in stored['thresholds']]
        is_valid = all(threshold is None or 0 <= threshold <= 1 for threshold in thresholds)
        if thresholds and stored['classes'] == list(names) and len(thresholds) == len(names) and is_valid:
            return thresholds
    return None
