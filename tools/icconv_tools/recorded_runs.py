"""Trainings that are done once: their weights and what they measured, which hold for the settings that they had."""

import hashlib
import inspect
import json
import time
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from icconv_mm.app.training.train import train

# variables of config files that only help to write them are not settings
_SETTINGS = inspect.signature(Runner).parameters.keys() - {'work_dir'}


def digest(config: Config, root: Path, *others: str) -> str:
    """What tells settings apart: all that a Runner takes but its folder, and ``others``.

    Args:
        config: The config of a run.
        root: Folder of data and runs, which may be moved.
        others: What else decides about the result, as text.
    """
    settings = {key: value for key, value in config.to_dict().items() if key in _SETTINGS}
    text = json.dumps(settings, sort_keys=True, default=str).replace(str(root), 'ROOT')
    return hashlib.sha256('\n'.join((text, *others)).encode()).hexdigest()[:16]


def find_result(file: Path, settings: str) -> dict | None:
    """The content of a file of results if there is one, with these ``settings`` in it; else None."""
    if not file.is_file():
        return None
    result = json.loads(file.read_text())
    return result if result['settings'] == settings else None


def train_once(config: Config, weights: Path) -> tuple[Runner, float]:
    """Train, and save the weights alone. Returns the runner and the seconds that the training took."""
    start = time.perf_counter()
    runner = train(config)
    seconds = time.perf_counter() - start
    runner.save_checkpoint(str(weights.parent), weights.name, save_optimizer=False, save_param_scheduler=False)
    return runner, round(seconds, 1)
