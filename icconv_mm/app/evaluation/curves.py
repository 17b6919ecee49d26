"""Curves of a training, read from its logs."""

import json
import math
from pathlib import Path
from typing import Any

_LAST_STEP = 1 << 53  # largest integer that a float counts to
_NO_METRICS = ('step', 'epoch', 'time', 'data_time')  # entries of a validation's log that are no metrics


def logged_curves(work_dir: Path, steps: int = 1) -> dict[str, dict[str, dict[float, float]]]:
    """Returns losses, metrics and learning rates by name and iteration, from the logs of all runs in a folder.

    Args:
        work_dir: The folder; a resumed or new run replaces what earlier ones logged from its first iteration on.
        steps: Iterations per epoch, for validations that are numbered by epochs.
    """
    groups: dict[str, dict[str, dict[int, float]]] = {'loss': {}, 'metric': {}, 'learning rate': {}}
    for file in sorted(work_dir.glob('*/vis_data/scalars.json')):
        entries = _logged(file, steps)
        begin = min((step for _, step, is_training in entries if is_training), default=math.inf)
        for values in (values for group in groups.values() for values in group.values()):
            for step in [step for step in values if step >= begin]:
                del values[step]
        for entry, step, is_training in entries:
            for key, value in entry.items():
                if not isinstance(value, (int, float)):  # a list with a value per class
                    continue
                name = 'learning rate' if key.endswith('lr') else 'loss' if 'loss' in key else None
                if not is_training:
                    name = None if key in _NO_METRICS or value < 0 else 'metric'
                if name is not None:
                    groups[name].setdefault(key, {})[step] = value
    return {name: group for name, group in groups.items() if group}


def _logged(file: Path, steps: int) -> list[tuple[dict[str, Any], float, bool]]:
    """Returns the entries of a log that have a step, each with its iteration and whether it is of the training.

    A line that was cut off when a run was killed is skipped.
    """
    entries = []
    for line in file.read_text(errors='replace').splitlines():
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        step = entry.get('step', entry.get('iter', 0)) if isinstance(entry, dict) else None
        if isinstance(step, (int, float)) and abs(step) < _LAST_STEP:
            is_training = 'lr' in entry or 'iter' in entry
            entries.append((entry, step if is_training else step * steps, is_training))
    return entries
