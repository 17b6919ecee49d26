"""Hook that keeps what a run's metrics have measured for its report."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, Runner

from icconv_mm.app.adapters.base import TaskAdapter
from icconv_mm.app.evaluation.evaluate import ObservedMetric, Reading, evaluation_of, first_line_of
from icconv_mm.app.evaluation.observers import observer_of
from icconv_mm.app.evaluation.results import Evaluation


class EvaluationHook(Hook):
    """Keeps what the metrics of a test measure, or of the validation that chose the best checkpoint.

    Args:
        adapter: The adapter of the run's task.

    Attributes:
        checkpoint: The best checkpoint; None if the config keeps none.
        speeds: Images per second of the last training epochs, and of validations or tests.
        tasks: The description of each task, with its class names and colours.
        fault: Why the classes of a task are unknown; None if they are known.
    """

    priority = 'LOWEST'  # after the hook that saves the best checkpoint

    def __init__(self, adapter: TaskAdapter) -> None:
        self.adapter = adapter
        self.checkpoint: str | None = None
        self.speeds: dict[str, float] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.fault: str | None = None
        self.started = time.perf_counter()
        self._observed: dict[int, tuple[str, ObservedMetric | None]] = {}  # by id of the metric
        self._kept: tuple[list[tuple[str, ObservedMetric, Reading]], Mapping[str, Any], int] = [], {}, 0

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner.val_loop)

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner.test_loop)

    def _begin(self, loop: BaseLoop) -> None:
        self._epoch = time.perf_counter()
        for metric in getattr(getattr(loop, 'evaluator', None), 'metrics', ()):
            if id(metric) not in self._observed:
                self._observed[id(metric)] = observer_of(self.adapter, metric)
        for _, reading in self._observed.values():
            if reading is not None:
                reading.begin()
        meta = getattr(loop.dataloader.dataset, 'metainfo', None) or {}
        for name, (adapter, reading) in self.adapter.parts(dict(meta)).items():
            if name not in self.tasks:
                self.tasks[name] = {'kind': adapter.kind, 'classes': ()}
                try:
                    self.tasks[name] = adapter.described(reading)
                except Exception as error:  # a dataset of the user's own; the run does not fail for its report
                    self.fault = first_line_of(error)

    def before_train(self, runner: Runner) -> None:
        self.checkpoint = best_checkpoint(runner)  # of a resumed run

    def before_train_epoch(self, runner: Runner) -> None:
        self._epoch_of_training = time.perf_counter(), runner.iter

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        begun, iteration = getattr(self, '_epoch_of_training', (time.perf_counter(), runner.iter))
        done, seconds = runner.iter + 1 - iteration, time.perf_counter() - begun
        batch = runner.train_dataloader.batch_size or 1
        if done > 1 and seconds > 0:
            self.speeds['training'] = done * batch * get_world_size() / seconds

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        self._end(runner, 'validation', len(runner.val_dataloader.dataset), metrics)

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        self._end(runner, 'test', len(runner.test_dataloader.dataset), metrics)

    def _end(self, runner: Runner, name: str, images: int, metrics: Mapping[str, float] | None) -> None:
        self.speeds[name] = images / max(time.perf_counter() - self._epoch, 1e-9)
        if name == 'validation' and isinstance(runner._train_loop, BaseLoop):
            self._epoch_of_training = time.perf_counter(), runner.iter
        best = best_checkpoint(runner)
        readings = [
            (task, reading, reading.latest) for task, reading in self._observed.values() if reading and reading.latest
        ]
        if best is None or best != self.checkpoint:
            self._kept, self.checkpoint = (readings, dict(metrics or {}), images), best
        for _, observed, _ in readings:
            observed.latest = None

    def evaluations(self, thresholds: Mapping[str, Any] | None = None) -> dict[str, Evaluation]:
        """Returns the evaluation of each task that a metric has measured."""
        readings, metrics, images = self._kept
        evaluations = {}
        for name, task in self.tasks.items() if is_main_process() else ():
            start = f'{name}/' if name else ''
            numbers = {key.removeprefix(start): value for key, value in metrics.items() if key.startswith(start)}
            readings_of_task = [(observed, reading) for of, observed, reading in readings if of == name]
            if numbers or readings_of_task:
                given = (thresholds or {}).get(name)
                evaluations[name] = evaluation_of(
                    task,
                    readings_of_task,
                    numbers,
                    len(readings_of_task[0][1].results) if readings_of_task else images,
                    given,
                )
        return evaluations


def best_checkpoint(runner: Runner) -> str | None:
    """Returns the best checkpoint of a run; None if the config keeps none, or none was chosen yet."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best is not None:
            several = getattr(hook, 'best_ckpt_path_dict', None) or {}
            with suppress(StopIteration):
                path = getattr(hook, 'best_ckpt_path', None) or next(filter(None, several.values()))
                return path if Path(path).is_file() else None
    return None
