"""Hook that keeps a run's validated or tested predictions for its report."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.dist import collect_results, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, Runner

from icconv_mm.errors import message_of, printable
from icconv_mm.evaluation import Evaluation, Record, evaluate, record_of, without_surplus_maps
from icconv_mm.tasks.adapter import TaskAdapter


class EvaluationHook(Hook):
    """Keeps the predictions of a test, or of the validation that chose the best checkpoint.

    A metric would see samples without their types; the results of the config's own metrics stay as they are.

    Args:
        adapter: The adapter of the run's task.

    Attributes:
        checkpoint: The best checkpoint; None if the config keeps none.
        speeds: Images per second of the last training epochs, and of validations or tests.
    """

    priority = 'LOWEST'  # after the hook that saves the best checkpoint

    def __init__(self, adapter: TaskAdapter) -> None:
        self.adapter = adapter
        self.checkpoint: str | None = None
        self.speeds: dict[str, float] = {}
        self.started = time.perf_counter()
        self._latest: list[dict[str, Record]] = []
        self._kept: list[dict[str, Record]] = []
        self._with_maps: dict[str, list[Record]] = {}
        self._tasks: dict[str, dict[str, Any]] = {}
        self._infos: dict[str, dict[str, tuple[Any, int]]] | None = None
        self._fault: str | None = None

    # --- collecting ---

    def before_val_epoch(self, runner: Runner) -> None:
        self._begin(runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        self._begin(runner.test_dataloader.dataset)

    def _begin(self, dataset: Any) -> None:
        self._latest, self._epoch = [], time.perf_counter()
        if self._infos is None and self._fault is None:
            try:
                self._read(dataset)
            except Exception as error:  # a dataset of the user's own; the run does not fail for its report
                self._refuse(error)
        self._with_maps = {name: [] for name in self._tasks}

    def _read(self, dataset: Any) -> None:
        """Finds class names and the annotations that samples do not hold."""
        meta = getattr(dataset, 'metainfo', None) or {}
        parts = self.adapter.parts(dict(meta)).items()
        self._tasks = {name: adapter.evaluated(own) for name, (adapter, own) in parts if adapter.kind}
        self._infos = {name: {} for name in self._tasks}
        for name, leaf in self.adapter.annotated_datasets(dataset):
            for index in range(len(leaf) if name in self._tasks else 0):
                path = leaf.get_data_info(index).get('img_path')
                self._infos[name][os.path.abspath(path or '')] = leaf, index

    def _refuse(self, error: Exception) -> None:
        self._fault = f'{type(error).__name__}: {printable(message_of(error).splitlines()[0]):.200}'
        self._latest = []

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._add(outputs)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._add(outputs)

    def _add(self, samples: Sequence[Any] | None) -> None:
        if self._fault is not None or not self._tasks:
            return
        try:
            added = [self._records(sample) for sample in samples or ()]
            self._latest += added
            for name, records in self._with_maps.items():  # few, so that an image costs the same in any dataset
                records += [each[name] for each in added if name in each and 'seg_map' in each[name].truth]
                without_surplus_maps(records)
                records[:] = [each for each in records if each.truth]
        except Exception as error:  # samples of a library's other tasks have other fields
            self._refuse(error)

    def _records(self, sample: Any) -> dict[str, Record]:
        path = os.path.abspath(sample.img_path)
        records = {}
        for name, (adapter, _) in self.adapter.parts({}).items():
            own = sample.get(name) if name else sample
            if own is None or name not in self._tasks:
                continue
            leaf, index = self._infos[name].get(path) or (None, 0)
            truth = adapter.truth(own, leaf.get_data_info(index) if leaf is not None else None)
            if truth is not None:
                records[name] = record_of(
                    path, own.get('ori_shape') or sample.ori_shape, adapter.predictions(own), truth
                )
        return records

    # --- keeping ---

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
        self._end(runner, 'validation', len(runner.val_dataloader.dataset))

    def after_test_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        self._end(runner, 'test', len(runner.test_dataloader.dataset))

    def _end(self, runner: Runner, name: str, images: int) -> None:
        self.speeds[name] = images / max(time.perf_counter() - self._epoch, 1e-9)
        if name == 'validation' and isinstance(runner._train_loop, BaseLoop):
            self._epoch_of_training = time.perf_counter(), runner.iter
        if get_world_size() > 1:
            self._latest = collect_results(self._latest, images) or []
        best = best_checkpoint(runner)
        if best is None or best != self.checkpoint:
            self._kept, self.checkpoint = self._latest, best
        self._latest = []

    def evaluations(self, thresholds: Mapping[str, Any] | None = None) -> dict[str, Evaluation]:
        """Returns the evaluation of each task; none without annotations, whose reason ``fault`` has."""
        found = {}
        for name, task in self._tasks.items() if is_main_process() else ():
            records = [each[name] for each in self._kept if name in each]
            without_surplus_maps(records)
            if records:
                found[name] = evaluate(task, records, (thresholds or {}).get(name))
        return found

    @property
    def tasks(self) -> dict[str, dict[str, Any]]:
        """Returns the description of each task, with its class names and colours."""
        return self._tasks

    @property
    def fault(self) -> str | None:
        """Returns why predictions were not evaluated; None if nothing failed."""
        return self._fault


def best_checkpoint(runner: Runner) -> str | None:
    """Returns the best checkpoint of a run; None if the config keeps none, or none was chosen yet."""
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best is not None:
            several = getattr(hook, 'best_ckpt_path_dict', None) or {}
            with suppress(StopIteration):
                path = getattr(hook, 'best_ckpt_path', None) or next(filter(None, several.values()))
                return path if Path(path).is_file() else None
    return None
